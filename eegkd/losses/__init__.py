"""Losses as pure functions, and the terms that compose them."""

from eegkd.losses.attention import attention_alignment
from eegkd.losses.balance import Balancer, fixed, gradnorm, scheduled, uncertainty
from eegkd.losses.compose import Term, combine, term_means, total_loss, weighted_mean
from eegkd.losses.contrastive import clip_loss, similarity_kl
from eegkd.losses.language import next_token_loss, num_targets
from eegkd.losses.layers import fitnet, negative_entropy, token_cosine
from eegkd.losses.logits import (
    binary_cross_entropy,
    binary_jensen_shannon,
    binary_kd_kl,
    binary_reverse_kl,
    cosine_distance,
    cross_entropy,
    decoupled_kd,
    jensen_shannon,
    kd_kl,
    reverse_kl,
)
from eegkd.losses.relation import (
    across_batch,
    relation_angle,
    relation_distance,
    rkd_angle,
    rkd_distance,
)
from eegkd.losses.similarity import cka_distance, similarity_preserving
from eegkd.losses.spectral import spectral_magnitude, spectral_phase, spectral_view
from eegkd.losses.transport import relative_epsilon, token_ot, token_plan
from eegkd.losses.uld import uld

__all__ = [
    "Balancer",
    "Term",
    "across_batch",
    "attention_alignment",
    "binary_cross_entropy",
    "binary_jensen_shannon",
    "binary_kd_kl",
    "binary_reverse_kl",
    "cka_distance",
    "clip_loss",
    "combine",
    "cosine_distance",
    "cross_entropy",
    "decoupled_kd",
    "fitnet",
    "fixed",
    "gradnorm",
    "jensen_shannon",
    "kd_kl",
    "negative_entropy",
    "next_token_loss",
    "num_targets",
    "relation_angle",
    "relation_distance",
    "relative_epsilon",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "scheduled",
    "similarity_kl",
    "similarity_preserving",
    "spectral_magnitude",
    "spectral_phase",
    "spectral_view",
    "term_means",
    "token_cosine",
    "token_ot",
    "token_plan",
    "total_loss",
    "uld",
    "uncertainty",
    "weighted_mean",
]
