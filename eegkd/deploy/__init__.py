"""What leaves the library: exported graphs, a card, predictions on new recordings."""
