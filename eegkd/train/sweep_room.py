"""Number of a sweep's members that fit on a device."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from eegkd.train.parallel import MakeStep
from eegkd.train.state import TrainState
from eegkd.typing import Batch, PyTree, Variables

SHARE_OF_MEMORY = 0.8
How = Literal["auto", "sequential", "vmap"]


def member_bytes(
    make_step: MakeStep,
    state: TrainState,
    frozen: PyTree,
    upstream: Mapping[str, Variables],
    batch: Batch,
) -> int:
    """Returns the bytes of one member on a device, by compiling its step.

    The figure is the compiler's for arguments, results and temporaries, with what the
    loop keeps with them. It counts `upstream` as if it were not shared.
    """
    step = jax.jit(make_step(None), donate_argnums=0)
    used = step.lower(state, frozen, upstream, batch).compile().memory_analysis()
    if used is None:
        raise ValueError("This backend does not say what memory a program takes.")
    compiled = (
        used.argument_size_in_bytes
        + used.output_size_in_bytes
        + used.temp_size_in_bytes
        - used.alias_size_in_bytes
    )
    # The start stays, and the next batch is put while this one is read.
    start = (state.params, state.state, state.opt_state)
    best = (state.params, state.state)
    return compiled + sum(x.nbytes for x in jax.tree.leaves((start, best, batch)))


def members_at_once(how: How, num: int, bytes_one: int, devices: Sequence[Any]) -> int:
    """Returns how many members one program trains; 1 is one after another.

    Args:
        how: `vmap` takes all that fit, `sequential` one; `auto` is `vmap` on an
            accelerator and `sequential` on a CPU.
        num: Number of members.
        bytes_one: Bytes of one member, from `member_bytes`.
        devices: Devices that share the members.
    """
    if how == "sequential" or (how == "auto" and devices[0].platform == "cpu"):
        return 1
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None:
        return num
    fit = int(SHARE_OF_MEMORY * limit // max(bytes_one, 1)) * len(devices)
    return min(num, max(fit, 1))
