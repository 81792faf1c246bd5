"""Low-rank adapters (LoRA) of frozen linear layers, by the layers' paths.

`y = x W + b` becomes `y = x W + b + (alpha / r) (drop(x) A) B`, A being `[in, r]` and B
`[r, out]`. W does not change and gets no gradient: training never forms the product AB.
Adapters may be wider numbers than W, as float32 on bfloat16: the product is taken
in the layer's own type, and their gradients keep the adapters' type.
It works on any module whose linear layers are `nn.Dense`, scanned ones too, whose
adapters are stacked as their kernels are.

Reference:
    Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models",
    arXiv 2106.09685, eq. 3.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.errors import InputError
from eegkd.models.grid import uniform_fan_in
from eegkd.models.heads import apply_params
from eegkd.ops.dropout import keep_mask
from eegkd.ops.low_rank import low_rank_product
from eegkd.typing import Array, PyTree

_DOWN, _UP = "lora_down", "lora_up"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Sizes of the adapters, and their places.

    Attributes:
        rank: Inner width r.
        alpha: Scale: the adapters' output is multiplied by alpha / rank.
        dropout: Rate on the adapters' input in training.
        targets: Paths of linear layers, as layers/qkv; * stands for anything, a
            number of levels too.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("layers/*",)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(
                f"lora.rank is at least 1 and lora.alpha above 0; got {self.rank}, "
                f"{self.alpha}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is in [0, 1); got {self.dropout}.")


def find_linears(module: nn.Module, *args: Any, **options: Any) -> tuple[str, ...]:
    """Lists the paths of a module's linear layers, by tracing one call.

    Args:
        module: Any module.
        args: Arguments of the call; shapes are enough.
        options: Keywords of the call.
    """
    found: dict[str, None] = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_linear(context):
            found["/".join(context.module.path)] = None
        return call(*args, **kwargs)

    def init(key: Array, args: Any) -> Any:
        with nn.intercept_methods(record):
            return module.init(key, *args, **options)

    jax.eval_shape(init, jax.random.key(0), args)
    return tuple(found)


def init_adapters(
    key: Array, base: PyTree, linears: Sequence[str], config: LoraConfig
) -> PyTree:
    """Draws adapters for the chosen layers: A uniform, B zero, so that nothing changes.

    Args:
        key: Random key.
        base: Parameters of the module.
        linears: Linear layers of the module, from `find_linears`.
        config: Targets among them, and sizes.

    Returns:
        Parameters nested as `base` is: `lora_down [*, in, r]`, `lora_up [*, r, out]` in
        the place of each kernel `[*, in, out]`.

    Raises:
        InputError: If a target is the path of no linear layer.
    """
    chosen: dict[str, None] = {}
    for pattern in config.targets:
        matched = fnmatch.filter(linears, pattern)
        if not matched:
            raise InputError(
                f"lora.targets {pattern}: no linear layer has such a path; there are "
                f"{', '.join(linears)}."
            )
        chosen |= dict.fromkeys(matched)
    adapters: dict[str, Any] = {}
    for i, path in enumerate(chosen):
        *outer, last = path.split("/")
        place, source = adapters, base
        for name in outer:
            place, source = place.setdefault(name, {}), source[name]
        *stack, num_in, num_out = source[last]["kernel"].shape
        draw, rank = uniform_fan_in(num_in), config.rank
        place[last] = {
            _DOWN: draw(jax.random.fold_in(key, i), (*stack, num_in, rank)),
            _UP: jnp.zeros((*stack, rank, num_out)),
        }
    return adapters


def apply_adapted(
    module: nn.Module,
    base: PyTree,
    adapters: PyTree,
    *args: Any,
    alpha: float,
    dropout: float = 0.0,
    **options: Any,
) -> Any:
    """Calls a module with adapters on its linear layers.

    Args:
        module: Any module.
        base: Parameters of the module.
        adapters: Adapters from `init_adapters`.
        args: Arguments of the call.
        alpha: Alpha of the config.
        dropout: Rate of the config when training, otherwise 0; it needs the
            `dropout` random stream, as `rngs={"dropout": key}`.
        options: Keywords of the call.

    Raises:
        ValueError: If dropout has no random stream.
    """
    if dropout and "dropout" not in (options.get("rngs") or {}):
        raise ValueError(f'dropout={dropout} needs rngs={{"dropout": key}}.')

    def add(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = call(*args, **kwargs)
        layer = context.module
        if not (_is_linear(context) and layer.has_variable("params", _DOWN)):
            return y
        down, up = (
            layer.get_variable("params", name).astype(y.dtype) for name in (_DOWN, _UP)
        )
        x = args[0].astype(y.dtype)
        if dropout:
            keep = keep_mask(layer.make_rng("dropout"), x.shape, rate=dropout)
            x = jnp.where(keep, x / (1 - dropout), jnp.zeros_like(x))
        return y + low_rank_product(x, down, alpha / down.shape[-1] * up)

    with nn.intercept_methods(add):
        return apply_params(module, _join(base, adapters), *args, **options)


def merge_adapters(base: PyTree, adapters: PyTree, *, alpha: float) -> PyTree:
    """Returns parameters `W + (alpha / r) A B` that need no adapters."""
    return _add(base, adapters, alpha)


def unmerge_adapters(merged: PyTree, adapters: PyTree, *, alpha: float) -> PyTree:
    """Returns the parameters that `merge_adapters` was given, up to rounding."""
    return _add(merged, adapters, -alpha)


def _is_linear(context: Any) -> bool:
    return type(context.module) is nn.Dense and context.method_name == "__call__"


def _join(base: PyTree, adapters: PyTree) -> dict[str, Any]:
    joined = dict(base)
    for name, value in adapters.items():
        nested = isinstance(value, Mapping)
        joined[name] = _join(base[name], value) if nested else value
    return joined


def _add(base: PyTree, adapters: PyTree, alpha: float) -> dict[str, Any]:
    added = dict(base)
    for name, value in adapters.items():
        if _DOWN not in value:
            added[name] = _add(base[name], value, alpha)
            continue
        down, up = value[_DOWN], value[_UP]
        kernel = base[name]["kernel"]
        change = jnp.matmul(down, up, precision=jax.lax.Precision.HIGHEST)
        wide = kernel + alpha / down.shape[-1] * change
        added[name] = {**base[name], "kernel": wide.astype(kernel.dtype)}
    return added
