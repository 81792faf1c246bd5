"""Benchmarks of a training step on this machine."""
