"""Rules that scale the terms of a stage against each other."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from eegkd.typing import Array, PyTree


class Balancer(NamedTuple):
    """How terms are scaled, as a pair of pure functions.

    Attributes:
        init: `(term names) -> state`, kept in the train state.
        weigh: `(state, raw_means, grad_norms) -> (scale, state)`, dicts by term name;
            the scale multiplies each term's own weight. `grad_norms` is None unless
            the step computes one a term.
    """

    init: Callable[[tuple[str, ...]], PyTree]
    weigh: Callable[
        [PyTree, Mapping[str, Array], Mapping[str, Array] | None],
        tuple[dict[str, Array], PyTree],
    ]


def fixed(weights: Mapping[str, float] | None = None) -> Balancer:
    """Scales each term by a constant: `weights[name]`, 1 where not given."""
    given = dict(weights or {})

    def init(names: tuple[str, ...]) -> PyTree:
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(
                f"No term {', '.join(unknown)}; the terms are {', '.join(names)}."
            )
        return {name: jnp.float32(given.get(name, 1.0)) for name in names}

    def weigh(state, raw_means, grad_norms):
        del grad_norms
        return {name: state[name] for name in raw_means}, state

    return Balancer(init, weigh)
