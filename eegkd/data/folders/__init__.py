"""Anyone's folder of recordings: its files, its table of labels, and its persons."""
