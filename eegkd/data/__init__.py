"""Recordings in, labelled windows out: NumPy only."""
