"""Batches of windows: which rows, in which order, and what comes with the signal."""
