"""One training step of one stage: pure, one device's view, explicit collectives."""

from collections.abc import Callable, Mapping

import jax
import optax

from eegkd.losses import Balancer, combine
from eegkd.systems import System, balanced_terms, get_stage
from eegkd.train.gradients import bind_gradient, term_gradients
from eegkd.train.inputs import step_keys, upstream_tensors, with_labelled
from eegkd.train.state import TrainState
from eegkd.typing import Array, Batch, PyTree, Variables

__all__ = ["Step", "make_train_step", "step_keys", "upstream_tensors", "with_labelled"]

Step = Callable[
    [TrainState, PyTree, Mapping[str, Variables], Batch],
    tuple[TrainState, dict[str, Array]],
]


def make_train_step(
    system: System,
    stage_name: str,
    tx: optax.GradientTransformation,
    *,
    balancer: Balancer | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Step:
    """Builds `step(state, frozen, upstream, batch) -> (state, metrics)`.

    `upstream` maps earlier stage names to their Variables. A stage found in
    `batch["cache"]` is read; any other that is needed runs with `train=False` and
    `key=None`. Both are stopped, and only the tensors that terms and `needs` name are
    handed on. Terms may also read "batch.labelled", which is 1 where the label is
    not negative.

    Args:
        system: System of the stage.
        stage_name: Stage to train.
        tx: The optimiser; sees `params` alone.
        balancer: Scales the terms by their means, and by the norms of their gradients
            where it needs them (one pass back through the model per term).
        axis_name: The device axis to reduce over, where the runner has one.
        accumulate: Micro-batches per step; the result is that of the one large batch.

    Returns:
        The step. Its metrics are `loss`, `raw/<term>`, `weighted/<term>`, `grad_norm`
        and, where the optimiser records it, `learning_rate`.

    Raises:
        ValueError: If the stage has no terms, or `accumulate` is below 1.
    """
    stage = get_stage(system, stage_name)
    if not stage.terms:
        raise ValueError(f"Stage {stage_name!r} has no terms, so it is not trained.")
    if accumulate < 1:
        raise ValueError(f"accumulate is at least 1; got {accumulate}.")
    balanced = balanced_terms(stage)
    bind = bind_gradient(system, stage, axis_name=axis_name, accumulate=accumulate)

    def step(state, frozen, upstream, batch):
        take = bind(state, frozen, upstream, batch)
        norms = None
        if balancer is not None and balancer.needs_grad_norms:
            alone = term_gradients(take, balanced, balancer.shared)
            norms = {name: optax.tree.norm(grad) for name, grad in alone.items()}

        def objective(means):
            terms = [
                term._replace(weight=state.weights.get(term.name, term.weight))
                for term in stage.terms
            ]
            scale, balance = None, state.balancer
            if balancer is not None:
                stopped = jax.lax.stop_gradient(means)
                own = {term.name: stopped[term.name] for term in balanced}
                scale, balance = balancer.weigh(state.balancer, own, norms)
            loss, metrics = combine(terms, means, state.step, scale=scale)
            return loss, ({"loss": loss} | metrics, balance)

        grads, (metrics, balance), new_state = take(objective)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        rate = optax.tree.get(opt_state, "learning_rate")
        if rate is not None:
            metrics["learning_rate"] = rate
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            state=new_state,
            opt_state=opt_state,
            balancer=balance,
        )
        return state, metrics

    return step
