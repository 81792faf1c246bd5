"""State that a training step changes: one pytree, donated to each step."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from eegkd.losses import Balancer
from eegkd.systems import Stage, balanced_terms
from eegkd.typing import Array, Float, Int, Key, PyTree, Variables


@struct.dataclass
class TrainState:
    """The state of one stage's training.

    Frozen variables and earlier stages are separate arguments of the step: they have
    no gradient and no optimiser slot, and are never donated.

    Attributes:
        step: Updates done.
        params: Trained parameters.
        state: Mutable statistics, such as BatchNorm's.
        opt_state: State of the optimiser.
        key: Key of the run, which never changes: each step folds its number in.
        weights: Weight of each term whose weight is a number. As an input of the
            compiled step, it lets ablations that differ by weights alone share one
            compilation.
        balancer: The balancer's state; None without one.
    """

    step: Int[Array, ""]
    params: PyTree
    state: PyTree
    opt_state: PyTree
    key: Key[Array, ""]
    weights: dict[str, Float[Array, ""]]
    balancer: PyTree = None

    def variables(self, frozen: PyTree) -> Variables:
        """Returns the stage's variables at this state."""
        return Variables(self.params, frozen, self.state)


def init_state(
    stage: Stage,
    variables: Variables,
    tx: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    weights: Mapping[str, float] | None = None,
    balancer: Balancer | None = None,
) -> TrainState:
    """Makes the state before the first step.

    Args:
        stage: Stage whose terms are trained with.
        variables: The stage's variables; copied, because steps donate their state.
        tx: The optimiser.
        key: The run's key.
        weights: Replaces weights of terms by name, for ablations and controls.
        balancer: The balancer of `make_train_step`.

    Raises:
        ValueError: If `weights` names no term, or one whose weight is a schedule.
    """
    used = {t.name: t.weight for t in stage.terms if not callable(t.weight)}
    given = dict(weights or {})
    unknown = sorted(set(given) - set(used))
    if unknown:
        raise ValueError(
            f"Stage {stage.name!r} has no term of constant weight {', '.join(unknown)};"
            f" it has {', '.join(used) or 'none'}."
        )
    params, state = copy_arrays((variables.params, variables.state))
    names = tuple(term.name for term in balanced_terms(stage))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        state=state,
        opt_state=tx.init(params),
        key=copy_arrays(key),
        weights={k: jnp.array(v, jnp.float32) for k, v in (used | given).items()},
        balancer=None if balancer is None else balancer.init(names),
    )


def copy_arrays(tree: Any) -> Any:
    """Copies every array, so that donating the copy leaves the original alive."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def stack(trees: Sequence[Any]) -> Any:
    """Joins trees of equal structure and shapes along a new first axis: the members."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def unstack(tree: Any, num_members: int) -> list[Any]:
    """Splits a stacked tree into members on the host; keys stay on the device."""

    def fetch(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return np.asarray(x)
        bits = jnp.asarray(np.asarray(jax.random.key_data(x)))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(x))

    tree = jax.tree.map(fetch, tree)
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(num_members)]
