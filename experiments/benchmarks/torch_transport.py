"""Entropic transport in PyTorch, as one would write it, and in libraries on it."""

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Pair = tuple[Callable[[], Any], Callable[[], Any]]
PEERS = {"torch": "torch", "ot": "pot", "geomloss": "geomloss"}


def missing() -> list[str]:
    """Returns one line per missing package, with the cure."""
    return [
        f"{peer} is left out, because it is not installed: pip install {peer}."
        for module, peer in PEERS.items()
        if not _there(module)
    ]


def make_all(
    x: np.ndarray, y: np.ndarray, epsilon: float, *, num_iters: int
) -> dict[tuple[str, str], Pair]:
    """Builds functions of value, and of value and gradients, by name and kind.

    What is not installed is left out. "envelope" is of the regularised value,
    "unrolled" of <P, C>.

    Note:
        The gradient of geomloss 0.3's batch solver is twice that of its value: the
        column of errors shows 1. `SamplesLoss`, which anneals epsilon, has the right
        one.
    """
    if not _there("torch"):
        return {}
    losses: dict[tuple[str, str], Callable[..., Any]] = {}
    for domain, solve in (("log", _plan_by_logs), ("exp", _plan_by_products)):
        losses[f"torch {domain}", "envelope"] = functools.partial(_envelope, solve)
        losses[f"torch {domain}", "unrolled"] = functools.partial(_unrolled, solve)
    if _there("ot"):
        losses["POT batch log", "envelope"] = functools.partial(_pot, "envelope")
        losses["POT batch log", "unrolled"] = functools.partial(_pot, "autodiff")
    if _there("geomloss"):
        losses["geomloss batch", "envelope"] = _geomloss
    options = {"epsilon": epsilon, "num_iters": num_iters}
    of_tokens: dict[tuple[str, str], Callable[..., Any]] = {
        key: functools.partial(_of_cost, functools.partial(loss, **options))
        for key, loss in losses.items()
    }
    if _there("geomloss"):
        of_tokens["geomloss samples", "envelope"] = _geomloss_samples(x, y, **options)
    return {key: _make(loss, x, y) for key, loss in of_tokens.items()}


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _make(loss: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Pair:
    import torch

    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in (x, y)]

    def value():
        with torch.no_grad():
            return loss(*tensors).sum().item()

    def both():
        total = loss(*tensors).sum()
        return total.item(), torch.autograd.grad(total, tensors)

    return value, both


def _of_cost(loss: Callable[..., Any], x, y):
    return loss(_cost(x, y))


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


def _geomloss_samples(
    x: np.ndarray, y: np.ndarray, *, epsilon: float, num_iters: int
) -> Callable[..., Any]:
    """Anneals to the same epsilon in as many steps; its cost is half of ours."""
    blur = math.sqrt(epsilon / 2)
    apart = x.max((0, 1)) - y.min((0, 1)), y.max((0, 1)) - x.min((0, 1))
    diameter = float(np.linalg.norm(np.maximum(*apart)))
    loss = importlib.import_module("geomloss").SamplesLoss(
        blur=blur,
        diameter=diameter,
        scaling=(blur / diameter) ** (1 / (num_iters - 2)),
        debias=False,
        backend="tensorized",
    )
    return lambda x, y: 2 * loss(x, y)
