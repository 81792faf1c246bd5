"""One module a verb: its options, and what it calls."""
