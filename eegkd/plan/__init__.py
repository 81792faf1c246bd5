"""What a run or a model would cost; nothing is compiled or run."""
