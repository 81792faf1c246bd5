"""Entropic transport in PyTorch, as one would write it, and in libraries on it."""

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def make_all(
    x: np.ndarray, y: np.ndarray, epsilon: float, *, num_iters: int
) -> dict[tuple[str, str], Pair]:
    """Builds functions of value, and of value and gradients, by name and kind.

    What is not installed is left out. "envelope" is of the regularised value,
    "unrolled" of <P, C>.
    """
    losses: dict[tuple[str, str], Callable[..., Any]] = {}
    if importlib.util.find_spec("torch") is None:
        return {}
    for domain, solve in (("log", _plan_by_logs), ("exp", _plan_by_products)):
        losses[f"torch {domain}", "envelope"] = functools.partial(_envelope, solve)
        losses[f"torch {domain}", "unrolled"] = functools.partial(_unrolled, solve)
    if importlib.util.find_spec("ot") is not None:
        losses["POT batch log", "envelope"] = functools.partial(_pot, "envelope")
        losses["POT batch log", "unrolled"] = functools.partial(_pot, "autodiff")
    if importlib.util.find_spec("geomloss") is not None:
        losses["geomloss batch", "envelope"] = _geomloss
    return {
        key: _make(functools.partial(loss, epsilon=epsilon, num_iters=num_iters), x, y)
        for key, loss in losses.items()
    }


def _make(loss: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Pair:
    import torch

    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in (x, y)]

    def value():
        with torch.no_grad():
            return loss(_cost(*tensors)).sum().item()

    def both():
        total = loss(_cost(*tensors)).sum()
        return total.item(), torch.autograd.grad(total, tensors)

    return value, both


def _cost(x, y):
    squares = (x**2).sum(-1)[:, :, None] + (y**2).sum(-1)[:, None, :]
    return squares - 2 * x @ y.transpose(1, 2)


def _envelope(solve, cost, *, epsilon: float, num_iters: int):
    import torch

    with torch.no_grad():
        plan = solve(cost, epsilon=epsilon, num_iters=num_iters)
        size = cost.shape[1] * cost.shape[2]
        entropy = epsilon * torch.special.xlogy(plan, plan * size).sum((1, 2))
    return (plan * cost).sum((1, 2)) + entropy


def _unrolled(solve, cost, *, epsilon: float, num_iters: int):
    plan = solve(cost, epsilon=epsilon, num_iters=num_iters)
    return (plan * cost).sum((1, 2))


def _plan_by_logs(cost, *, epsilon: float, num_iters: int):
    import torch

    scaled = cost / epsilon
    log_a, log_b = (-math.log(size) for size in cost.shape[1:])
    f, g = scaled.new_zeros(scaled.shape[:2]), scaled.new_zeros(scaled.shape[::2])
    for _ in range(num_iters):
        f = log_a - torch.logsumexp(g[:, None, :] - scaled, 2)
        g = log_b - torch.logsumexp(f[:, :, None] - scaled, 1)
    return torch.exp(f[:, :, None] + g[:, None, :] - scaled)


def _plan_by_products(cost, *, epsilon: float, num_iters: int):
    import torch

    least = cost.min(2, keepdim=True).values
    kernel = torch.exp((least - cost) / epsilon)
    turned = kernel.transpose(1, 2)
    n, m = cost.shape[1:]
    u, v = kernel.new_ones(cost.shape[0], n, 1), kernel.new_ones(cost.shape[0], m, 1)
    for _ in range(num_iters):
        u = 1 / n / (kernel @ v)
        v = 1 / m / (turned @ u)
    return u * kernel * v.transpose(1, 2)


def _pot(grad: str, cost, *, epsilon: float, num_iters: int):
    ot = importlib.import_module("ot")
    out = ot.solve_batch(
        cost, reg=epsilon, max_iter=num_iters, tol=0, method="log_sinkhorn", grad=grad
    )
    return out.value if grad == "envelope" else out.value_linear


def _geomloss(cost, *, epsilon: float, num_iters: int):
    ot = importlib.import_module("geomloss.ot")
    return ot.solve_batch(cost, reg=epsilon, max_iter=num_iters).value
