"""Losses as pure functions, and the terms that compose them."""

from eegkd.losses.compose import Term, total_loss, weighted_mean

__all__ = ["Term", "total_loss", "weighted_mean"]
