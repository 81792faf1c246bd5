"""Files that leave the library: weights, models and their cards."""
