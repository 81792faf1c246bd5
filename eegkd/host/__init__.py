"""Files that are whole, signals and this process: standard library and NumPy."""
