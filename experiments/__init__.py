"""Published systems on corpora, and benchmarks."""
