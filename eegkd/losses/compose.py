"""Weighted terms over named tensors, reduced by sums and counts."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.typing import Array, Float

Schedule = Callable[[Any], Any]


class Term(NamedTuple):
    """One loss of a stage, by the names of the tensors it reads.

    Attributes:
        name: Name of the term in the metrics.
        fn: A loss: arrays in the order of `inputs`, one number per example out.
        inputs: Names such as "student.tokens", "teacher.tokens", "batch.label".
        weight: A number, or an optax schedule of the step.
        count: Names the per-example weight (labelled mask, answer tokens), if any.
    """

    name: str
    fn: Callable[..., Array]
    inputs: tuple[str, ...]
    weight: float | Array | Schedule = 1.0
    count: str | None = None


def weighted_mean(
    values: Float[Array, " b"],
    counts: Float[Array, " b"],
    *,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Computes `psum(sum(values * counts)) / psum(sum(counts))`.

    Sums and counts are reduced, not means of means, so devices with unequal counts
    agree with one big batch. An example with count 0 adds nothing, not even a NaN.
    """
    values = jnp.where(counts > 0, values * counts, 0)
    total, count = jnp.sum(values), jnp.sum(counts)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1)


def lookup(tensors: Mapping[str, Any], name: str) -> Any:
    """Reads "group.tensor" from a dict of dicts.

    Raises:
        ValueError: If it is not there; the message lists what is.
    """
    group, _, key = name.partition(".")
    try:
        return tensors[group][key]
    except KeyError:
        have = sorted(f"{g}.{k}" for g, inner in tensors.items() for k in inner)
        raise ValueError(f"No tensor {name!r}; there are {', '.join(have)}.") from None


def term_values(
    terms: Sequence[Term],
    tensors: Mapping[str, Mapping[str, Any]],
    *,
    axis_name: str | None = None,
) -> dict[str, tuple[Float[Array, "..."], Float[Array, "..."]]]:
    """Computes each term's numbers and counts per example."""
    found = {}
    for term in terms:
        takes_axis = "axis_name" in signature(term.fn).parameters
        extra = {"axis_name": axis_name} if takes_axis else {}
        values = term.fn(*(lookup(tensors, name) for name in term.inputs), **extra)
        counts = jnp.ones_like(values)
        if term.count is not None:
            counts = lookup(tensors, term.count).astype(values.dtype)
        found[term.name] = values, counts
    return found


def term_means(
    terms: Sequence[Term],
    tensors: Mapping[str, Mapping[str, Any]],
    *,
    axis_name: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """Computes each term's unweighted mean over the examples of all devices."""
    values = term_values(terms, tensors, axis_name=axis_name)
    return {
        name: weighted_mean(*both, axis_name=axis_name) for name, both in values.items()
    }


def term_sums(
    terms: Sequence[Term], tensors: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Float[Array, ""], Float[Array, ""]]]:
    """Computes each term's sum over examples, and the sum of their counts."""
    return {
        name: (jnp.sum(jnp.where(counts > 0, values * counts, 0)), jnp.sum(counts))
        for name, (values, counts) in term_values(terms, tensors).items()
    }


def combine(
    terms: Sequence[Term],
    means: Mapping[str, Array],
    step: Any,
    *,
    scale: Mapping[str, Any] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Computes `sum_k scale_k weight_k(step) mean_k` and the metrics."""
    total = jnp.zeros((), jnp.float32)
    metrics: dict[str, Array] = {}
    for term in terms:
        weight = term.weight(step) if callable(term.weight) else term.weight
        if scale is not None:
            weight = weight * scale.get(term.name, 1.0)
        metrics[f"raw/{term.name}"] = means[term.name]
        metrics[f"weighted/{term.name}"] = weight * means[term.name]
        total = total + weight * means[term.name]
    return total, metrics


def total_loss(
    terms: Sequence[Term],
    tensors: Mapping[str, Mapping[str, Any]],
    step: Any,
    *,
    scale: Mapping[str, Any] | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Sums weighted means of terms: `sum_k scale_k weight_k(step) mean_k`.

    Args:
        terms: Terms to sum.
        tensors: By stage name and "batch", then by tensor name.
        step: The update's number, for scheduled weights.
        scale: A balancer's multiplier per term; 1 where there is none.
        axis_name: The device axis to reduce over; also passed to each `fn` that has a
            parameter of that name (a batch-global loss).

    Returns:
        The scalar, and the metrics `raw/<term>` and `weighted/<term>`.
    """
    means = term_means(terms, tensors, axis_name=axis_name)
    return combine(terms, means, step, scale=scale)
