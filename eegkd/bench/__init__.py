"""What a training step takes on this machine."""
