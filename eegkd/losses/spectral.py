"""Distances between the spectra of student and teacher representations.

Training only: an exported graph never holds them. A term's inputs name the site; the
axis is the one these functions transform, and `spectral_view` brings a grid
of tokens into the form for each choice of it.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows, mean_kept
from eegkd.typing import Array, Bool, Float

Method = Literal["fft", "dft"]
View = Literal["patch", "channel_series", "feature"]


def spectral_magnitude(
    student: Float[Array, " b *s"],
    teacher: Float[Array, " b *s"],
    mask: Bool[Array, " b *r"] | None = None,
    *,
    axis: int = -1,
    method: Method = "fft",
    eps: float = 1e-12,
) -> Float[Array, " b"]:
    """Computes the mean over bins of `|log(1 + |F_s|) - log(1 + |F_t|)|`.

    F is the orthonormal `rfft` along `axis`. A circular shift along it changes nothing.

    Args:
        student: Arrays of any shape, the batch first.
        teacher: Arrays of the student's shape.
        mask: True where a row counts, the shape without `axis`.
        axis: Axis to transform.
        method: "fft", or "dft" for a product with the DFT's matrix, which is faster on
            an accelerator for short axes.
        eps: Inside the root of `|F| = sqrt(re^2 + im^2 + eps)`.

    Example:
        >>> import jax.numpy as jnp
        >>> wave = jnp.array([[1.0, 2.0, 0.0, 5.0]])
        >>> spectral_magnitude(wave, jnp.roll(wave, 1)).item() < 1e-6
        True
        >>> round(spectral_magnitude(wave, 0 * wave).item(), 4)
        1.3147

    References:
        DLink, arXiv 2604.15016, its spectral term (a reconstruction).
    """
    pair = _spectra(student, teacher, mask, axis, method)
    size_s, size_t = (jnp.sqrt(re**2 + im**2 + eps) for re, im in pair)
    gap = jnp.abs(jnp.log1p(size_s) - jnp.log1p(size_t))
    return mean_kept(jnp.mean(gap, axis=-1), mask)


def spectral_phase(
    student: Float[Array, " b *s"],
    teacher: Float[Array, " b *s"],
    mask: Bool[Array, " b *r"] | None = None,
    *,
    axis: int = -1,
    method: Method = "fft",
    eps: float = 1e-6,
) -> Float[Array, " b"]:
    """Computes the mean of `1 - cos(arg F_s - arg F_t)` over bins, weighted by `|F_t|`.

    The cosine is `Re(F_s conj(F_t)) / (|F_s| |F_t|)`: no angle is ever taken, so
    nothing jumps where one wraps around. Between 0 and 2, which is that of a negated
    input. F is the orthonormal `rfft` along `axis`.

    Args:
        student: Arrays of any shape, the batch first.
        teacher: Arrays of the student's shape.
        mask: True where a row counts, the shape without `axis`.
        axis: Axis to transform.
        method: As for `spectral_magnitude`.
        eps: Added to the product and inside both roots,
            `(Re + eps) / sqrt((|F_s|^2 + eps) (|F_t|^2 + eps))`: equal bins have
            cosine one, silent ones too, and the gradient is at most about
            `1 / sqrt(eps)`.

    Example:
        >>> import jax.numpy as jnp
        >>> wave = jnp.array([[1.0, 2.0, 0.0, 5.0]])
        >>> round(spectral_phase(wave, -wave).item(), 4)
        2.0
        >>> spectral_phase(wave, 3 * wave).item() < 1e-6
        True

    Note:
        The weight is part of the derivative by the teacher; a training step stops it.

    References:
        DLink, arXiv 2604.15016, its spectral term (a reconstruction).
    """
    pair = _spectra(student, teacher, mask, axis, method)
    (re_s, im_s), (re_t, im_t) = pair
    square_s, square_t = (re**2 + im**2 + eps for re, im in pair)
    cosine = re_s * re_t + im_s * im_t + eps
    cosine = cosine * jax.lax.rsqrt(square_s) * jax.lax.rsqrt(square_t)
    weight = keep_rows(jnp.sqrt(square_t), mask)
    axes = tuple(range(1, weight.ndim))
    total = jnp.sum(weight, axis=axes)
    value = jnp.sum(weight * (1 - cosine), axis=axes)
    return value / jnp.where(total > 0, total, 1)


def spectral_view(
    tokens: Float[Array, "b n d"], *, grid: tuple[int, int], view: View | None = None
) -> Float[Array, "b r t"]:
    """Reshapes a grid of tokens to rows with the axis to transform last.

    Args:
        tokens: Channel-major, patch-minor, `n = channels * patches`.
        grid: Channels and patches.
        view: "patch", the patches of a channel and feature, `[b, c d, p]`;
            "channel_series", a channel's patches end to end, `[b, c, p d]`; "feature",
            a token's features, `[b, n, d]`. None is "patch" from 8 patches on and
            "channel_series" below, where patches give too few bins.

    Example:
        >>> import jax.numpy as jnp
        >>> spectral_view(jnp.zeros((2, 15, 7)), grid=(3, 5)).shape
        (2, 3, 35)

    Note:
        A backbone whose features have no order in time gives the last two the spectrum
        of a learned ordering.
    """
    b, n, d = tokens.shape
    c, p = grid
    if n != c * p:
        raise ValueError(f"{n} tokens are no grid of {c} channels and {p} patches.")
    if view is None:
        view = "patch" if p >= 8 else "channel_series"
    if view == "patch":
        by_patch = jnp.swapaxes(tokens.reshape(b, c, p, d), 2, 3)
        return by_patch.reshape(b, c * d, p)
    if view == "channel_series":
        return tokens.reshape(b, c, p * d)
    if view == "feature":
        return tokens
    raise ValueError(f"view is patch, channel_series or feature; got {view!r}.")


def _spectra(
    student: Array, teacher: Array, mask: Array | None, axis: int, method: str
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns real and imaginary parts of both, bins last."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"Student and teacher differ in shape: {student.shape}, {teacher.shape}."
        )
    if not axis % max(student.ndim, 1) > 0 or not -student.ndim <= axis < student.ndim:
        raise ValueError(f"axis is one after the batch's; got {axis}.")
    if method not in ("fft", "dft"):
        raise ValueError(f"method is 'fft' or 'dft'; got {method!r}.")

    def transform(x: Array) -> tuple[Array, Array]:
        x = keep_rows(jnp.moveaxis(promote(x), axis, -1), mask)
        if method == "fft":
            spectrum = jnp.fft.rfft(x, norm="ortho")
            return jnp.real(spectrum), jnp.imag(spectrum)
        cosine, sine = (jnp.asarray(m, x.dtype) for m in _dft_matrices(x.shape[-1]))
        product = lambda m: jnp.matmul(x, m, precision=jax.lax.Precision.HIGHEST)
        return product(cosine), product(sine)

    return transform(student), transform(teacher)


def _dft_matrices(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns real and imaginary parts of the one-sided orthonormal DFT, [t, f]."""
    # Whole turns are taken off as integers: the angle keeps its precision.
    turns = np.outer(np.arange(size), np.arange(size // 2 + 1)) % size
    angle = 2 * np.pi * turns / size
    return np.cos(angle) / np.sqrt(size), -np.sin(angle) / np.sqrt(size)
