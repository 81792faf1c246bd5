"""RKD's angles: by Gram matrices in chunks of vertices, and by all differences."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.losses import rkd_angle
from experiments.benchmarks.timing import Runner, compile_jax

NAIVE = "all differences"
CHUNKS = (1, 4, 16, 64)


class Case(NamedTuple):
    """Sets of tokens [batch, n, width], the teacher's wider."""

    name: str
    batch: int
    n: int
    width: int
    teacher_width: int


CASES = (
    Case("angles 8x64x256, teacher 768", 8, 64, 256, 768),
    Case("angles 1x128x256, teacher 768", 1, 128, 256, 768),
)


def make_all(case: Case) -> dict[tuple[str, str], Runner]:
    """Compiles both forms, ours for several chunks."""
    x, y = (jnp.asarray(z, jnp.float32) for z in _tokens(case))
    found = {("eegkd", f"chunk {chunk}"): _ours(chunk, x, y) for chunk in CHUNKS}
    total = lambda x, y: jnp.sum(_naive(x, y))
    return found | {(NAIVE, "-"): compile_jax(total, x, y)}


def reference(case: Case) -> list[np.ndarray]:
    """Computes both gradients in float64, of the sums over all differences."""
    with jax.enable_x64(True):
        total = lambda x, y: jnp.sum(_naive(x, y))
        made = jax.jit(jax.grad(total, (0, 1)))(*_tokens(case))
        return [np.asarray(grad) for grad in made]


def _tokens(case: Case) -> list[np.ndarray]:
    """Draws a student that resembles its teacher, rounded to float32."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(case.batch, case.n, case.teacher_width))
    student = teacher[..., : case.width] + rng.normal(
        size=(case.batch, case.n, case.width)
    )
    return [z.astype(np.float32).astype(np.float64) for z in (student, teacher)]


def _ours(chunk: int, x, y) -> Runner:
    loss = functools.partial(rkd_angle, chunk=chunk)
    return compile_jax(lambda x, y: jnp.sum(loss(x, y)), x, y)


def _naive(student, teacher):
    gap = jnp.abs(_cosines(teacher) - _cosines(student))
    loss = jnp.where(gap < 1, 0.5 * gap**2, gap - 0.5)
    return jnp.mean(loss, axis=(1, 2, 3))


def _cosines(x):
    apart = x[:, None, :, :] - x[:, :, None, :]  # [b, i, j, d]
    square = jnp.sum(apart**2, axis=-1, keepdims=True)
    there = square > 0
    units = apart * jnp.where(there, jax.lax.rsqrt(jnp.where(there, square, 1)), 0)
    return jnp.einsum("bijd,bikd->bijk", units, units, precision="highest")
