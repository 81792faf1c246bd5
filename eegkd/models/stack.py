"""Equal layers as one scan: compile time flat in depth, memory by a policy.

A few layers stand in a row instead: a loop copies a layer's weights to read them, and
what it keeps of them to write it.

Of the layers between, only those asked for are kept: a scan that returned all of them
would hold `depth` times the tokens to give away most.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.ops.placing import split_batch
from eegkd.typing import Array, PyTree, Tensors

Remat: TypeAlias = Literal["none", "full", "dots"]
"""Values kept for a backward pass: "none" keeps all that the forward pass had, "full"
the input of each layer alone, "dots" the results of matrix products with weights too
(about a third more memory per layer than "full", for half of its recomputation)."""

UNROLLED = 12
"""Layers compiled in a row, without a loop: a tenth less time per step on a CPU
(CBraMod, and adapters of a LLaMA of 8 layers), for more compiling (1 s for those, for
CBraMod 4 s, with dropout 12 s)."""

_POLICIES: dict[str, Callable[..., bool]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def block_numbers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Counts layers from the front: -2 of 24 is 22.

    Raises:
        ValueError: If there is no such layer.
    """
    wrong = [i for i in layers if not -depth <= i < depth]
    if wrong:
        raise ValueError(f"There are {depth} layers; got {wrong}.")
    return tuple(sorted({i % depth for i in layers}))


def scan_layers(
    layer: nn.Module,
    x: Array,
    *shared: Any,
    depth: int,
    scanned: PyTree = None,
    layers_out: Sequence[int] = (),
    remat: str = "none",
) -> tuple[Array, Tensors, PyTree]:
    """Applies `depth` copies of a layer, each with its own parameters.

    Args:
        layer: Function `layer(x, scanned_i, *shared) -> (x, y)`; its parameters are
            stacked, `[depth, ...]`.
        x: Tokens of any shape, which every layer keeps.
        shared: Arguments that all layers get.
        depth: Number of layers.
        scanned: Arrays `[depth, ...]` that each layer gets a slice of, as a cache.
        layers_out: Layers whose output is wanted, by number; negative ones count from
            the end.
        remat: Policy of the backward pass, see `Remat`.

    Returns:
        The last layer's tokens, those asked for as `block_i`, and each layer's `y`
        stacked.

    Raises:
        ValueError: If there is no such layer or policy.
    """
    if remat not in get_args(Remat):
        raise ValueError(f"remat is one of {get_args(Remat)}; got {remat!r}.")
    wanted = block_numbers(layers_out, depth)
    # Layers that are not asked for all write to one place past the others, which is
    # cheaper than a choice.
    slots = (
        jnp.full(depth, len(wanted))
        .at[jnp.array(wanted, int)]
        .set(jnp.arange(len(wanted)))
    )
    kept = jnp.zeros((len(wanted) + 1, *x.shape), x.dtype) if wanted else None

    def body(
        layer: Any, carry: tuple[Array, Array | None], slot: Array, *args: Any
    ) -> tuple[tuple[Array, Array | None], PyTree]:
        x, kept = carry
        x, y = layer(split_batch(x), *args)
        if kept is not None:
            kept = jax.lax.dynamic_update_index_in_dim(kept, x, slot, 0)
        return (x, kept), y

    # With a cache a step is one token's: copying each weight out of the stack, as a row
    # does, would cost a third of it.
    unroll = depth if depth <= UNROLLED and scanned is None else 1
    if remat != "none":
        # The loop itself keeps XLA from undoing it.
        unroll = 1
        body = nn.remat(body, prevent_cse=False, policy=_POLICIES[remat])
    scan = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, 0, *[nn.broadcast] * len(shared)),  # pyright: ignore
        length=depth,
        unroll=unroll,
    )
    (x, kept), ys = scan(layer, (x, kept), slots, scanned, *shared)
    blocks = (
        {} if kept is None else {f"block_{i}": kept[j] for j, i in enumerate(wanted)}
    )
    return x, blocks, ys
