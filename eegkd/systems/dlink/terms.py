"""Terms of DLink's stages."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from eegkd.errors import InputError
from eegkd.losses import (
    Term,
    binary_cross_entropy,
    binary_kd_kl,
    cross_entropy,
    fitnet,
    kd_kl,
    negative_entropy,
    spectral_magnitude,
    spectral_phase,
    spectral_view,
    token_cosine,
)
from eegkd.ops.mixing import standardise
from eegkd.systems.dlink.config import DlinkConfig
from eegkd.typing import Array, Float

_PROJECTED = ("student.tokens", "student.router_mixed")
_COMPRESSED = ("student.router_decoded", "student.router_target")


def label_term(
    stage: str, config: DlinkConfig, smoothing: float | None, weight: float
) -> Term:
    """Makes the cross-entropy of a stage; a smoothing of None follows the classes.

    Where a window may have several classes it is the binary one, class by class.

    Raises:
        InputError: If such labels are to be smoothed.
    """
    inputs = (f"{stage}.logits", "batch.label")
    if config.signal.multilabel:
        if smoothing:
            group = "teacher" if stage == "teacher" else "loss"
            raise InputError(
                f"--{group}.label_smoothing {smoothing:g}: these windows may have "
                "several classes, whose labels are not smoothed. Leave the option out."
            )
        return Term("ce", binary_cross_entropy, inputs, weight, "batch.labelled")
    if smoothing is None:
        smoothing = 0.1 if len(config.signal.classes) > 2 else 0.0
    loss = functools.partial(cross_entropy, label_smoothing=smoothing)
    return Term("ce", loss, inputs, weight, "batch.labelled")


def student_terms(config: DlinkConfig) -> tuple[Term, ...]:
    """Lists the terms on class logits."""
    kd = config.kd
    smoothing = config.loss.label_smoothing
    terms = [label_term("student", config, smoothing, 1.0 - kd.alpha)]
    if kd.alpha:
        soft = binary_kd_kl if config.signal.multilabel else kd_kl
        loss = functools.partial(soft, temperature=kd.temperature)
        inputs = ("student.logits", "teacher.logits")
        terms.append(Term("kd", loss, inputs, kd.alpha))
    return tuple(terms)


def router_terms(config: DlinkConfig, grid: tuple[int, int]) -> list[Term]:
    """Lists the terms that read the mixture of layers, the router's own last."""
    terms = [*_feature_terms(config), *_spectral_terms(config, grid)]
    return [*terms, *_own_terms(config)]


def decodes(config: DlinkConfig) -> bool:
    """Returns True if a loss compares compressed tokens, through a decoder."""
    return _COMPRESSED in _sites(config)


def _sites(config: DlinkConfig) -> tuple[tuple[str, str], ...]:
    """Lists the pairs that the spectral loss compares."""
    if config.student.order == "compress_only":
        # The student never has the teacher's tokens: all is compared after compression.
        return (_COMPRESSED,)
    if not config.loss.lambda_spec:
        return ()
    sites = {"project": (_PROJECTED,), "compress": (_COMPRESSED,)}
    return sites.get(config.spec.site, (_PROJECTED, _COMPRESSED))


def _feature_terms(config: DlinkConfig) -> list[Term]:
    if not config.loss.lambda_feat:
        return []
    only = config.student.order == "compress_only"
    loss = functools.partial(fitnet, normalise=True)
    if config.loss.feat == "cosine":
        loss = token_cosine
    pair = _COMPRESSED if only else _PROJECTED
    return [Term("feat", loss, pair, config.loss.lambda_feat)]


def _spectral_terms(config: DlinkConfig, grid: tuple[int, int]) -> list[Term]:
    spec, weight = config.spec, config.loss.lambda_spec
    if not weight:
        return []
    view = None if spec.axis == "auto" else spec.axis
    terms = []
    for pair in _sites(config):
        # After compression there are no channels: one row of steps.
        name, own = ("", grid) if pair == _PROJECTED else ("compress_", None)
        of_site = functools.partial(_spectral, grid=own, view=view)
        if spec.magnitude:
            loss = functools.partial(of_site, spectral_magnitude)
            terms.append(Term(f"{name}magnitude", loss, pair, weight))
        if spec.beta:
            loss = functools.partial(of_site, spectral_phase)
            terms.append(Term(f"{name}phase", loss, pair, weight * spec.beta))
    return terms


def _spectral(
    loss: Callable[[Array, Array], Array],
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n d"],
    *,
    grid: tuple[int, int] | None,
    view: Any,
) -> Float[Array, " b"]:
    """Computes the spectral loss on standardised tokens.

    A mixture of layers is shorter than a layer: unstandardised, it would seem harder
    to match than it is.
    """
    grid = grid or (1, student.shape[1])
    rows = (
        spectral_view(standardise(x), grid=grid, view=view) for x in (student, teacher)
    )
    return loss(*rows)


def _own_terms(config: DlinkConfig) -> list[Term]:
    router = config.router
    if not router.learns:
        return []
    terms = []
    if router.aux_probe:
        inputs = ("student.router_probe", "batch.label")
        loss = binary_cross_entropy if config.signal.multilabel else cross_entropy
        weight, count = router.aux_weight, "batch.unseen_labelled"
        terms.append(Term("router_probe", loss, inputs, weight, count))
    if router.entropy_bonus and router.entropy_steps:
        weight = functools.partial(
            _until, num_steps=router.entropy_steps, weight=router.entropy_bonus
        )
        inputs = ("student.router_alpha",)
        terms.append(Term("router_entropy", negative_entropy, inputs, weight))
    return terms


def _until(step: Any, *, num_steps: int, weight: float) -> Array:
    return jnp.where(step < num_steps, weight, 0.0)
