"""Heads: on pooled features, and on all tokens of a grid as foundation models have."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.grid import PATCH, uniform_fan_in
from eegkd.models.layers import Dropout, LayerNorm
from eegkd.typing import Array, Float, PyTree, Tensors


def apply_params(module: nn.Module, params: PyTree, *args: Any, **options: Any) -> Any:
    """Calls a module with parameters alone, where Linen's `apply` wants collections."""
    return module.apply({"params": params}, *args, **options)


class LinearHead(nn.Module):
    """Maps features to class logits in float32: LayerNorm, Dense."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Returns class logits."""
        x = LayerNorm(name="norm")(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        return nn.Dense(self.num_classes, name="dense")(x)


class TaskHead(nn.Module):
    """Maps an encoder's tensors to class logits in float32.

    `tokens` are flattened and go through Dense, ELU and dropout as often as there are
    widths in `hidden`, then through Dense; without `hidden`, `pooled` goes through
    Dense alone.

    Attributes:
        num_classes: Number of logits; 1 for a binary task.
        hidden: Hidden widths; None takes `pooled`, () flattens tokens for one layer.
        dropout: Rate after each of the hidden layers.
        last_std: Spread of the last layer's first weights, its biases being zero; None
            is uniform within `1 / sqrt(inputs)`, biases too, as all other layers are.
    """

    num_classes: int
    hidden: tuple[int, ...] | None = None
    dropout: float = 0.1
    last_std: float | None = None

    @nn.compact
    def __call__(self, tensors: Tensors, *, train: bool = False) -> Float[Array, "b k"]:
        """Returns class logits."""
        x = tensors["pooled" if self.hidden is None else "tokens"]
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden or ()):
            init = uniform_fan_in(x.shape[-1])
            dense = nn.Dense(
                width, kernel_init=init, bias_init=init, name=f"hidden_{i}"
            )
            x = Dropout(self.dropout)(nn.elu(dense(x)), train=train)
        if self.last_std is None:
            kernel_init = bias_init = uniform_fan_in(x.shape[-1])
        else:
            kernel_init = nn.initializers.normal(self.last_std)
            bias_init = nn.initializers.zeros
        last = nn.Dense(
            self.num_classes, kernel_init=kernel_init, bias_init=bias_init, name="last"
        )
        return last(x)


def cbramod_head(
    kind: str, *, num_patches: int, num_classes: int, dropout: float = 0.1
) -> TaskHead:
    """Builds one of the heads that CBraMod is fine-tuned with.

    `all_patch`, its default, is most of the model: 41 M parameters for 64 channels and
    4 patches, where the backbone has 4.9 M.

    Args:
        kind: "all_patch", "two_layer", "one_layer" or "average".
        num_patches: Patches per window; they set the first width of `all_patch`.
        num_classes: Number of logits; 1 for a binary task.
        dropout: Rate after each hidden layer.

    Raises:
        ValueError: If the kind is unknown.
    """
    # A single patch has the width of four in the published code.
    first = PATCH * (num_patches if num_patches > 1 else 4)
    widths = {
        "all_patch": (first, PATCH),
        "two_layer": (PATCH,),
        "one_layer": (),
        "average": None,
    }
    if kind not in widths:
        raise ValueError(f"Unknown head {kind!r}; there is {', '.join(widths)}.")
    return TaskHead(num_classes, widths[kind], dropout)


def labram_head(num_classes: int) -> TaskHead:
    """Builds the head that LaBraM is fine-tuned with, almost zero at first."""
    return TaskHead(num_classes, last_std=0.02 * 0.001)
