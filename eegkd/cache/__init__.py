"""Outputs of any stage, or of any framework, on disk by window id: NumPy only."""
