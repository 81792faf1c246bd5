"""Losses as pure functions, and the terms that compose them."""

from eegkd.losses.balance import Balancer, fixed
from eegkd.losses.compose import Term, combine, term_means, total_loss, weighted_mean
from eegkd.losses.contrastive import clip_loss
from eegkd.losses.logits import (
    binary_cross_entropy,
    cosine_distance,
    cross_entropy,
    kd_kl,
)

__all__ = [
    "Balancer",
    "Term",
    "binary_cross_entropy",
    "clip_loss",
    "combine",
    "cosine_distance",
    "cross_entropy",
    "fixed",
    "kd_kl",
    "term_means",
    "total_loss",
    "weighted_mean",
]
