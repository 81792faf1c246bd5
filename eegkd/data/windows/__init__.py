"""Windows of recordings: how they are cut, kept on disk and divided into folds."""
