"""Probes of DLink's student and router, which are never trained on."""

import functools

import jax.numpy as jnp

from eegkd.losses import Term, negative_entropy, spectral_view
from eegkd.ops.bands import BANDS, power_in_band
from eegkd.ops.mixing import standardise
from eegkd.ops.rank import effective_rank
from eegkd.systems import Probe
from eegkd.systems.dlink.config import DlinkConfig
from eegkd.typing import Array, Float

_ALPHA = ("student.router_alpha",)
LAYERS = "routing"
"""The group of the weights of layers, which are drawn in one figure."""


def routing(config: DlinkConfig, layers: tuple[str, ...]) -> tuple[Probe, ...]:
    """Lists the weights of layers, their entropy and their variance over windows."""
    if not (config.router.learns and config.router.log_weights):
        return ()
    columns = (functools.partial(_column, i=i) for i in range(len(layers)))
    weights = (
        Probe(Term(f"alpha_{name}", column, _ALPHA), "eval", LAYERS)
        for name, column in zip(layers, columns, strict=True)
    )
    return (
        *weights,
        Probe(Term("routing_entropy", _entropy, _ALPHA), "eval"),
        Probe(Term("routing_variance", _variance, _ALPHA), "eval"),
    )


def ranks() -> tuple[Probe, ...]:
    """Lists effective ranks of the student before and after its compression."""
    return (
        Probe(Term("rank_tokens", _rank, ("student.tokens",))),
        Probe(Term("rank_compressed", _rank, ("student.compressed",))),
    )


def fidelity(grid: tuple[int, int], dim: int) -> tuple[Probe, ...]:
    """Lists the error of band power against the mixture of layers, and its rank."""
    pair = ("student.tokens", "student.router_mixed")
    errors = (
        Term(
            f"band_error_{name}",
            functools.partial(band_error, grid=grid, band=band),
            pair,
        )
        for name, band in BANDS.items()
        if band[0] < dim / 2
    )
    target = Term("rank_target", _rank, ("student.router_mixed",))
    return tuple(Probe(term) for term in (*errors, target))


def band_error(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n d"],
    *,
    grid: tuple[int, int],
    band: tuple[float, float],
) -> Float[Array, " b"]:
    """Computes `|P_s - P_t| / P_t`, the mean over channels.

    P is the power inside a band of a channel's standardised tokens end to end, read as
    a signal: a patch lasts one second, so its rate in Hz is the number of features.

    Note:
        The features of a token have no order in time, so these are bands of a learned
        ordering, and comparable between students of one teacher alone.
    """
    rate = student.shape[-1]
    p_s, p_t = (
        power_in_band(
            spectral_view(standardise(x), grid=grid, view="channel_series"),
            rate=rate,
            band=band,
        )
        for x in (student, teacher)
    )
    return jnp.mean(jnp.abs(p_s - p_t) / jnp.maximum(p_t, 1e-12), axis=-1)


def _column(x: Float[Array, "b l"], *, i: int) -> Float[Array, " b"]:
    return x[:, i]


def _entropy(x: Float[Array, "b l"]) -> Float[Array, " b"]:
    return -negative_entropy(x)


def _variance(x: Float[Array, "b l"]) -> Float[Array, " b"]:
    """Computes the squared distance to the mean weights of all these windows."""
    return jnp.sum((x - jnp.mean(x, axis=0)) ** 2, axis=-1)


def _rank(x: Float[Array, "b n d"]) -> Float[Array, " b"]:
    """Computes one effective rank of all tokens of all these windows."""
    return jnp.broadcast_to(effective_rank(x.reshape(-1, x.shape[-1])), x.shape[:1])
