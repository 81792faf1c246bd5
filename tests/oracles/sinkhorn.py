"""Entropic transport written plainly: log domain, float64, one problem."""

import numpy as np
from scipy.optimize import linprog
from scipy.special import xlogy


def solve(cost, a, b, epsilon, num_iters):
    """Updates f, then g, from g = 0; returns them in units of epsilon, and the plan."""
    cost, a, b = (np.asarray(x, np.float64) for x in (cost, a, b))
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    g = np.where(b > 0, 0, -np.inf)
    rows, columns = a > 0, b > 0
    f = np.full(len(a), -np.inf)
    for _ in range(num_iters):
        sums = logsumexp(g[None] - cost[rows] / epsilon, axis=1)
        f[rows] = log_a[rows] - sums
        sums = logsumexp(f[:, None] - cost[:, columns] / epsilon, axis=0)
        g[columns] = log_b[columns] - sums
    return f, g, np.exp(f[:, None] + g[None] - cost / epsilon)


def logsumexp(x, axis):
    """Adds up exponentials, of which one an axis is finite at least."""
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def values(cost, a, b, epsilon, num_iters):
    """Returns the three values by their formulas, the last two at the optimum."""
    f, g, plan = solve(cost, a, b, epsilon, num_iters)
    dual = np.sum(a[a > 0] * f[a > 0]) + np.sum(b[b > 0] * g[b > 0])
    return {
        "transport": np.sum(plan * cost),
        "entropic": epsilon * dual,
        "kl": epsilon * (dual - xlogy(a, a).sum() - xlogy(b, b).sum()),
    }


def value(cost, a, b, epsilon, num_iters, name):
    """Returns one value."""
    return values(cost, a, b, epsilon, num_iters)[name]


def numeric_gradient(fn, x, step):
    """Differentiates a scalar function by central differences."""
    x = np.array(x, np.float64)
    grad = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        grad[at] = (fn(up) - fn(down)) / (2 * step)
    return grad


def exact(cost, a, b):
    """Solves unregularised transport as a linear program."""
    n, m = cost.shape
    sums = np.concatenate(
        [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
    )
    done = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]))
    return done.fun
