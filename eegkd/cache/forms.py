"""Storage of a teacher's tensor: number format, pooled tokens, low rank.

A tensor is `f[w, ..., n, d]`: w windows of n tokens of width d. It is pooled over
tokens first, then projected, then written in its number format; reading undoes the last
two, so that a loss sees the teacher's width, and n / pool tokens.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from eegkd.errors import InputError

Numbers = Literal["float32", "bfloat16", "int8", "as_is"]


@dataclasses.dataclass(frozen=True)
class TensorForm:
    """Shape and storage of one tensor.

    Attributes:
        shape: Shape of one window in the teacher's outputs.
        dtype: Dtype in the teacher's outputs.
        numbers: float32; bfloat16, rounded to nearest, ties to even; int8 with a
            float32 scale per token vector (its largest magnitude / 127); as_is for
            integers and booleans.
        pool: Tokens that are averaged to one; 1 keeps them all.
        rank: Principal components kept of the last axis; 0 keeps it whole.
    """

    shape: tuple[int, ...]
    dtype: str
    numbers: Numbers = "float32"
    pool: int = 1
    rank: int = 0

    @property
    def read_shape(self) -> tuple[int, ...]:
        """Shape of one window, as read."""
        if self.pool == 1:
            return self.shape
        return (*self.shape[:-2], self.shape[-2] // self.pool, self.shape[-1])

    @property
    def parts(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Arrays on disk: suffix -> dtype and shape of one window."""
        shape = self.read_shape
        shape = (*shape[:-1], self.rank) if self.rank else shape
        if self.numbers == "int8":
            scale = (np.dtype(np.float32), shape[:-1])
            return {"": (np.dtype(np.int8), shape), ".scale": scale}
        names = {"float32": "f4", "bfloat16": "u2", "as_is": self.dtype}
        return {"": (np.dtype(names[self.numbers]), shape)}

    @property
    def bytes(self) -> int:
        """Size of one window on disk."""
        return sum(
            dtype.itemsize * int(np.prod(shape)) for dtype, shape in self.parts.values()
        )

    def describe(self) -> str:
        """Formats the form in words."""
        words = [self.numbers.replace("as_is", self.dtype)]
        if self.numbers == "int8":
            words.append("one scale a vector")
        if self.pool > 1:
            words.append(f"{self.pool} tokens averaged to one")
        if self.rank:
            words.append(f"{self.rank} principal components of {self.shape[-1]}")
        return ", ".join(words)


class Basis(NamedTuple):
    """Principal directions of a tensor's last axis: `mean f32[d]`, `axes f32[d, r]`."""

    mean: np.ndarray
    axes: np.ndarray


def choose_form(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    *,
    numbers: Numbers,
    pool: int,
    rank: int,
    asked: tuple[str, ...],
) -> TensorForm:
    """Chooses the storage form of one tensor.

    Tensors with tokens (two axes per window) take the wanted form; those with one
    vector per window (logits) stay exact unless they are named.

    Raises:
        InputError: If the form does not fit the tensor.
    """
    if dtype in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint32"):
        return TensorForm(shape, dtype, "as_is")
    if not (name in asked if asked else len(shape) >= 2):
        return TensorForm(shape, dtype)
    if pool > 1 and (len(shape) < 2 or shape[-2] % pool):
        tokens = shape[-2] if len(shape) >= 2 else "no"
        raise InputError(
            f"--cache.pool {pool}: {name} has {tokens} tokens; choose a divisor, or "
            "name the tensors to pool with --cache.tensors."
        )
    if rank and not (len(shape) and rank < shape[-1]):
        raise InputError(
            f"--cache.rank {rank}: {name} has shape {list(shape)}; choose less than "
            "its width, or name the tensors with --cache.tensors."
        )
    return TensorForm(shape, dtype, numbers, pool, rank)


def fit_basis(values: np.ndarray, rank: int) -> Basis:
    """Fits the leading principal axes of the last axis, in float64."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :rank]
    return Basis(mean.astype(np.float32), np.ascontiguousarray(axes, np.float32))


def pooled(values: np.ndarray, form: TensorForm) -> np.ndarray:
    """Averages groups of neighbouring tokens, in float32."""
    values = np.asarray(values, np.float32)
    if form.pool == 1:
        return values
    *lead, n, d = values.shape
    return values.reshape(*lead, n // form.pool, form.pool, d).mean(axis=-2)


def encode(
    values: np.ndarray, form: TensorForm, basis: Basis | None = None
) -> dict[str, np.ndarray]:
    """Encodes `[w, *form.shape]` as arrays for disk, by suffix."""
    if form.numbers == "as_is":
        return {"": np.asarray(values, form.dtype)}
    x = pooled(values, form)
    if basis is not None:
        x = (x - basis.mean) @ basis.axes
    if form.numbers == "bfloat16":
        return {"": to_bfloat16(x)}
    if form.numbers == "int8":
        scale = np.max(np.abs(x), axis=-1) / np.float32(127)
        safe = np.where(scale > 0, scale, np.float32(1))
        return {"": np.rint(x / safe[..., None]).astype(np.int8), ".scale": safe}
    return {"": np.ascontiguousarray(x)}


def decode(
    parts: Mapping[str, np.ndarray], form: TensorForm, basis: Basis | None = None
) -> np.ndarray:
    """Decodes arrays from disk to `f32[w, *form.read_shape]`."""
    x = parts[""]
    if form.numbers == "as_is":
        return x
    if form.numbers == "bfloat16":
        x = from_bfloat16(x)
    elif form.numbers == "int8":
        x = x * parts[".scale"][..., None]
    return x if basis is None else x @ basis.axes.T + basis.mean


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounds finite float32 to bfloat16, to nearest and ties to even, as uint16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Widens bfloat16, given as uint16, to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def stated_error(
    values: np.ndarray, form: TensorForm, basis: Basis | None
) -> dict[str, float]:
    """Measures the error of a form on a sample.

    Returns:
        `relative_rms`: RMS of (read back - teacher's) over the RMS of the teacher's,
        against the full float32 tensor, pooled values standing for each of their
        tokens; `relative_rms_after_pooling`: the same against the pooled tensor.
    """
    if form.numbers == "as_is":
        return {"relative_rms": 0.0, "relative_rms_after_pooling": 0.0}
    read = decode(encode(values, form, basis), form, basis)
    full = np.asarray(values, np.float32)
    spread = np.repeat(read, form.pool, axis=-2) if form.pool > 1 else read
    return {
        "relative_rms": _relative_rms(spread, full),
        "relative_rms_after_pooling": _relative_rms(read, pooled(values, form)),
    }


def _relative_rms(x: np.ndarray, reference: np.ndarray) -> float:
    reference = np.asarray(reference, np.float64)
    size = np.sqrt(np.mean(reference**2))
    error = np.sqrt(np.mean((x - reference) ** 2))
    return float(error / size) if size > 0 else float(error)


def form_json(form: TensorForm) -> dict[str, Any]:
    """Returns a form as a manifest holds it."""
    return dataclasses.asdict(form) | {"shape": list(form.shape)}


def form_of(entry: Mapping[str, Any]) -> TensorForm:
    """Reads a form that `form_json` wrote."""
    return TensorForm(**{**entry, "shape": tuple(entry["shape"])})
