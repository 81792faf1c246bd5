"""Array aliases, and the three containers every part passes to the next.

Dimension letters: `b` batch, `c` EEG channels, `t` time samples, `n` and `m` student
and teacher tokens, `d` width, `k` classes, `h` heads.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, Int, Key

# Booleans, or ones and zeros outside jit; `ops.masks.boolean_mask` refuses others by a
# message of its own.
from jaxtyping import Shaped as Mask

if TYPE_CHECKING:
    # A type checker cannot read jaxtyping's, and would know no function that has one.
    PyTree: TypeAlias = Any
else:
    from jaxtyping import PyTree

Batch: TypeAlias = Mapping[str, Any]
"""`signal f32[b, c, t]`, `label i32[b]` (-1 unlabelled), `subject i32[b]`,
`window_id i32[b]`, plus what a system's `prepare` adds; cached outputs of earlier
stages arrive as `batch["cache"][stage_name]`."""

Tensors: TypeAlias = dict[str, Array]
"""Results of a model: every tensor that a loss may read, by name."""


class Variables(NamedTuple):
    """The arrays of one stage, by what may happen to them.

    Attributes:
        params: Trained: gradient, optimiser slot, checkpoint.
        frozen: Used and never trained: no gradient buffer, no optimiser slot.
        state: Mutable statistics, such as BatchNorm's running means.
    """

    params: PyTree
    frozen: PyTree
    state: PyTree


class StepKeys(NamedTuple):
    """The random keys of one training step, what `Stage.forward` gets as `key`.

    Attributes:
        shared: Equal on all devices and micro-batches: one draw per step for all, such
            as a text template a class.
        local: Differs by device and micro-batch: dropout, augmentation.
    """

    shared: Key[Array, ""]
    local: Key[Array, ""]


__all__ = [
    "Array",
    "Batch",
    "Bool",
    "Float",
    "Int",
    "Key",
    "Mask",
    "PyTree",
    "StepKeys",
    "Tensors",
    "Variables",
]


def __dir__() -> list[str]:
    return list(__all__)
