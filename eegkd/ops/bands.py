"""Power of signals in frequency bands."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Float

BANDS: Mapping[str, tuple[float, float]] = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 45.0),
}
"""Edges in Hz, the lower one inside."""


def power_in_band(
    x: Float[Array, "*b t"], *, rate: float, band: tuple[float, float]
) -> Float[Array, " *b"]:
    """Computes the sum of `|F|^2` over a band's frequencies, F the orthonormal rfft.

    Args:
        x: Signals.
        rate: Samples per second.
        band: Edges in Hz, the lower one inside.

    Raises:
        ValueError: If no frequency of the transform lies in the band.
    """
    low, high = band
    freqs = np.fft.rfftfreq(x.shape[-1], 1 / rate)
    inside = (freqs >= low) & (freqs < high)
    if not inside.any():
        raise ValueError(
            f"No frequency of {x.shape[-1]} samples at {rate} Hz in {low} to {high} Hz."
        )
    spectrum = jnp.fft.rfft(promote(x), norm="ortho")[..., np.flatnonzero(inside)]
    return jnp.sum(jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2, axis=-1)
