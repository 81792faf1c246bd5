"""Rules that scale the terms of a stage against each other.

A scale multiplies a term's own weight, and every rule reads raw means: weights then say
in which shares balanced terms enter.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eegkd.losses.compose import Schedule, Term
from eegkd.typing import Array, PyTree

Scales = dict[str, Array]


class Balancer(NamedTuple):
    """Scaling of terms, as a pair of pure functions.

    Attributes:
        init: `(term names) -> state`, kept in the train state.
        weigh: `(state, raw_means, grad_norms) -> (scale, state)`, dicts by term name;
            the scale multiplies each term's own weight. `grad_norms` is None unless
            the step computes one per term.
        needs_grad_norms: True if the step computes the norm of the gradient of each
            term's raw mean: one pass back through the model per term.
        shared: Parameters that those norms are over, by the beginnings of their paths
            ("projection", "block_3/attention"); none given is all. A pass back ends at
            the earliest one.
    """

    init: Callable[[tuple[str, ...]], PyTree]
    weigh: Callable[
        [PyTree, Mapping[str, Array], Mapping[str, Array] | None], tuple[Scales, PyTree]
    ]
    needs_grad_norms: bool = False
    shared: tuple[str, ...] = ()


def fixed(weights: Mapping[str, float] | None = None) -> Balancer:
    """Scales each term by a constant: `weights[name]`, 1 where not given.

    Example:
        >>> balancer = fixed({"kd": 2.0})
        >>> balancer.init(("ce", "kd"))["kd"].item()
        2.0
    """
    given = dict(weights or {})

    def init(names: tuple[str, ...]) -> PyTree:
        _check_names(given, names)
        return {name: jnp.float32(given.get(name, 1.0)) for name in names}

    def weigh(state, raw_means, grad_norms):
        del grad_norms
        return {name: state[name] for name in raw_means}, state

    return Balancer(init, weigh)


def scheduled(schedules: Mapping[str, Schedule]) -> Balancer:
    """Scales each term by an optax schedule of the updates done, 1 where not given.

    Example:
        >>> import optax
        >>> balancer = scheduled({"kd": optax.linear_schedule(0.0, 1.0, 4)})
        >>> means, state = {"kd": jnp.ones(())}, balancer.init(("kd",))
        >>> for _ in range(3):
        ...     scale, state = balancer.weigh(state, means, None)
        >>> scale["kd"].item()
        0.5
    """

    def init(names: tuple[str, ...]) -> PyTree:
        _check_names(schedules, names)
        return jnp.zeros((), jnp.int32)

    def weigh(state, raw_means, grad_norms):
        del grad_norms
        one = lambda step: 1.0
        scale = {
            name: jnp.asarray(schedules.get(name, one)(state), jnp.float32)
            for name in raw_means
        }
        return scale, state + 1

    return Balancer(init, weigh)


def uncertainty(
    names: Iterable[str] | None = None, *, learning_rate: float = 0.025
) -> Balancer:
    """Learns a variance per term: scale `exp(-s)`, s descending `exp(-s) mean + s`.

    At rest every balanced term's scaled mean is 1. s starts at 0 (scale 1) and moves by
    at most `learning_rate` per update, the slope being cut off at 1: a term whose mean
    is 1000 is tamed after some `log(1000) / learning_rate` updates.

    Args:
        names: Terms to balance; None is all. Means have to be positive: a regulariser
            that may be negative, or a bridge's own task, is better left out.
        learning_rate: Rate of s.

    Note:
        A term whose mean is not positive in an update (a batch without labels) keeps
        its s then. The paper has `mean / (2 sigma^2) + log sigma` for a regression,
        half of this with s = log sigma^2, and descends with the model's optimiser.

    Example:
        >>> balancer = uncertainty(learning_rate=0.1)
        >>> state = balancer.init(("a",))
        >>> for _ in range(100):
        ...     scale, state = balancer.weigh(state, {"a": jnp.float32(20)}, None)
        >>> round(20 * scale["a"].item(), 2)
        1.0

    References:
        Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh
        losses for scene geometry and semantics", 2018, equation 7.
    """
    wanted = None if names is None else tuple(names)

    def init(all_names: tuple[str, ...]) -> PyTree:
        return {name: jnp.zeros(()) for name in _chosen(wanted, all_names)}

    def weigh(state, raw_means, grad_norms):
        del grad_norms
        scale = {name: jnp.exp(-s) for name, s in state.items()}
        moved = {}
        for name, s in state.items():
            mean = raw_means[name].astype(s.dtype)
            slope = jnp.maximum(1 - scale[name] * mean, -1)
            moved[name] = s - learning_rate * jnp.where(mean > 0, slope, 0)
        return {k: scale.get(k, jnp.ones(())) for k in raw_means}, moved

    return Balancer(init, weigh)


def gradnorm(
    names: Iterable[str] | None = None,
    *,
    alpha: float = 1.5,
    learning_rate: float = 0.025,
    shared: Iterable[str] = (),
) -> Balancer:
    """Brings the gradient norms of terms together; slow learners get more (GradNorm).

    With G_i the gradient norm of term i's raw mean L_i and w_i its scale, w descends

        sum_i |w_i G_i - target_i|,  target_i = mean_j(w_j G_j) r_i^alpha,
        r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))

    with the targets held, and is renormalised to a mean of 1 over the balanced terms.

    Args:
        names: Terms to balance; None is all.
        alpha: Degree to which terms that fall more slowly are favoured; 0 makes all
            norms equal.
        learning_rate: Rate of log w.
        shared: As `Balancer.shared`; the paper takes the last shared layer.

    Note:
        The descent is in log w, so that no scale can turn negative, and in units of
        the mean of w_j G_j, so that the terms' common size is nothing; the paper's is
        in w. L_i(0) is the first positive mean; a term without a positive mean or
        gradient in an update takes no part in it.

    Example:
        >>> balancer = gradnorm(alpha=0.0, learning_rate=0.1)
        >>> state = balancer.init(("a", "b"))
        >>> norms = {"a": jnp.float32(1.0), "b": jnp.float32(9.0)}
        >>> for _ in range(100):
        ...     scale, state = balancer.weigh(state, norms, norms)
        >>> bool(abs(scale["a"] - 9 * scale["b"]) < 0.5)
        True

    References:
        Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in
        deep multitask networks", 2018, equations 1 and 2, algorithm 1.
    """
    wanted = None if names is None else tuple(names)

    def init(all_names: tuple[str, ...]) -> PyTree:
        names = _chosen(wanted, all_names)
        # Arrays of their own: a step that donates its state may not get one twice.
        return {
            key: {name: jnp.zeros(()) for name in names}
            for key in ("log_scale", "first")
        }

    def weigh(state, raw_means, grad_norms):
        if grad_norms is None:
            raise ValueError("GradNorm needs each term's gradient norm.")
        keys = tuple(state["log_scale"])
        scale = jnp.exp(jnp.stack([state["log_scale"][k] for k in keys]))
        mean = jnp.stack([raw_means[k].astype(scale.dtype) for k in keys])
        norm = jnp.stack([grad_norms[k].astype(scale.dtype) for k in keys])
        first = jnp.stack([state["first"][k] for k in keys])
        first = jnp.where(first > 0, first, mean)
        there = (mean > 0) & (norm > 0)
        count = jnp.maximum(jnp.sum(there), 1)
        average = lambda x: jnp.sum(jnp.where(there, x, 0)) / count
        share = jnp.where(there, mean / jnp.where(first > 0, first, 1), 1)
        rate = share / jnp.where(jnp.any(there), average(share), 1)
        pull = scale * norm
        target = average(pull) * rate**alpha
        slope = jnp.where(there, pull * jnp.sign(pull - target), 0)
        slope = slope / jnp.where(jnp.any(there), average(pull), 1)
        log_scale = jnp.log(scale) - learning_rate * slope
        # A mean of one: the log of the mean scale is taken off.
        log_scale += jnp.log(len(keys)) - jax.nn.logsumexp(log_scale)
        state = {"log_scale": _parts(keys, log_scale), "first": _parts(keys, first)}
        now = _parts(keys, scale)
        return {k: now.get(k, jnp.ones(())) for k in raw_means}, state

    return Balancer(init, weigh, needs_grad_norms=True, shared=tuple(shared))


def _chosen(wanted: tuple[str, ...] | None, names: tuple[str, ...]) -> tuple[str, ...]:
    if wanted is None:
        return names
    _check_names(wanted, names)
    return wanted


def _check_names(given: Iterable[str], names: tuple[str, ...]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(
            f"No term {', '.join(unknown)}; the terms are {', '.join(names)}."
        )


def _parts(keys: tuple[str, ...], values: Array) -> dict[str, Array]:
    return {key: values[i] for i, key in enumerate(keys)}


RULES: Mapping[str, Callable[[], Balancer]] = {
    "uncertainty": uncertainty,
    "gradnorm": gradnorm,
}


def make_balancer(rule: str, terms: Sequence[Term]) -> Balancer | None:
    """Returns the balancer of a stage's terms; None where their weights alone scale."""
    if rule == "fixed" or len(terms) < 2:
        return None
    return RULES[rule]()
