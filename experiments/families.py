"""Systems that add one family of losses each to DistilCLIP-EEG's own two terms.

Made for students of fewer tokens than their teacher. Weights are guesses and were not
tuned; `--train.balance` levels the terms instead.
"""

import functools
from collections.abc import Callable
from typing import Any

from eegkd.losses import (
    Term,
    across_batch,
    attention_alignment,
    fitnet,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
    spectral_magnitude,
    token_ot,
)
from eegkd.models.bridges import MultiHeadAlignment
from eegkd.systems import System, add_terms
from eegkd.systems.bridge import add_bridge
from eegkd.systems.distilclip_eeg import make_system

POOLED = ("student.pooled", "teacher.pooled")
TOKENS = ("student.tokens", "teacher.tokens")
ALIGNED = ("student.tokens", "student.mhca_aligned")


def _features(config: Any) -> System:
    loss = functools.partial(fitnet, normalise=True)
    return _add(config, Term("fitnet", loss, POOLED, 0.5))


def _similarity(config: Any) -> System:
    return _add(config, Term("spkd", similarity_preserving, POOLED, 100.0))


def _relation(config: Any) -> System:
    return _add(
        config,
        Term("rkd_distance", across_batch(rkd_distance), POOLED, 25.0),
        Term("rkd_angle", across_batch(rkd_angle), POOLED, 50.0),
    )


def _transport(config: Any) -> System:
    loss = functools.partial(token_ot, epsilon=0.05, num_iters=50, cost="cosine")
    return _add(config, Term("ot", loss, TOKENS, 0.5))


def _attention(config: Any) -> System:
    width = config.encoder("student").dim
    return _bridge(config, Term("mhca", attention_alignment, ALIGNED, 0.5 / width))


def _spectral(config: Any) -> System:
    over_tokens = functools.partial(spectral_magnitude, axis=1)
    return _bridge(config, Term("spectral", over_tokens, ALIGNED, 0.5))


def _add(config: Any, *terms: Term) -> System:
    return add_terms(make_system(config), "student", *terms)


def _bridge(config: Any, term: Term) -> System:
    task = ("student.mhca_reconstruction", "student.mhca_target")
    return add_bridge(
        make_system(config),
        "student",
        "mhca",
        MultiHeadAlignment(num_heads=4),
        TOKENS,
        term,
        Term("mhca_own", fitnet, task, 1.0),
    )


FAMILIES: dict[str, Callable[[Any], System]] = {
    "features": _features,
    "similarity": _similarity,
    "relation": _relation,
    "transport": _transport,
    "attention": _attention,
    "spectral": _spectral,
}
