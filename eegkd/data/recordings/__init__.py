"""Recordings in: readers, channel names, montages and filters."""
