"""Deployment: exported graphs, a card, predictions on new recordings."""
