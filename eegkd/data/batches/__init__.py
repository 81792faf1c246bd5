"""Batches of windows: which rows, in which order, with what beside the signal."""
