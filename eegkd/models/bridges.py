"""Parts trained only to bring two models together; an exported student has none.

Their outputs enter the student's losses. Trained by those losses alone they find the
trivial answer (copy the student, pick the easiest layer), so each has its own task, and
by default the student's losses send no gradient into it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eegkd.models.layers import gelu
from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows
from eegkd.ops.mixing import mix_layers, standardise
from eegkd.ops.pairwise import masked_mean
from eegkd.typing import Array, Bool, Float, Tensors

Guard = Literal["reconstruct_teacher", "freeze_after_warmup", "stopgrad_query", "none"]
RouterMode = Literal["input", "static_softmax", "mean", "last"]


class MultiHeadAlignment(nn.Module):
    """Brings teacher tokens to the student's number and width by cross-attention.

        Q = H_s W_i^Q, K = H_t W_i^K, V = H_t W_i^V
        head_i = softmax(Q K^T / sqrt(d_k)) V
        aligned = concat(heads) W^O

    Queries come from the student and W^V, W^O are trained, so the module can learn to
    copy the student: the alignment loss vanishes and nothing is taught. `guard`
    prevents it:

    * "reconstruct_teacher" (default): queries and `aligned` are stopped; the module
      learns from its own task, to give back the teacher's tokens pooled to at most
      `num_segments` stretches: a term `fitnet` of "reconstruction" and "target" (and,
      with `num_classes`, a label probe on "probe").
    * "freeze_after_warmup": queries are stopped, and the gradient into the module is
      scaled by `learn`, which a schedule takes from 1 to 0.
    * "stopgrad_query": queries are stopped. The module can still chase the student.
    * "none": gradients everywhere, as the formula stands.

    Attributes:
        num_heads: Heads.
        head_dim: Width of a head; None divides the student's width by the heads.
        guard: Protection against copying, as above.
        num_segments: Stretches that the teacher is pooled to for its reconstruction.
            With one, a module that averages over all teacher tokens does as well as one
            that attends, and every aligned token may become the same.
        num_classes: Classes of the probe on the mean of "aligned"; 0 is none.

    References:
        EVL-ECG, arXiv 2605.29977 (a reconstruction).
    """

    num_heads: int = 8
    head_dim: int | None = None
    guard: Guard = "reconstruct_teacher"
    num_segments: int = 16
    num_classes: int = 0

    @nn.compact
    def __call__(
        self,
        student: Float[Array, "b n d"],
        teacher: Float[Array, "b m e"],
        student_mask: Bool[Array, "b n"] | None = None,
        teacher_mask: Bool[Array, "b m"] | None = None,
        *,
        learn: float | Float[Array, ""] = 1.0,
    ) -> Tensors:
        """Returns `aligned [b, n, d]`, `attention [b, h, n, m]` and its own task's.

        Those are "reconstruction" and "target", `[b, segments, e]`, under the default
        guard, and "probe", `[b, k]`, with `num_classes`.
        """
        if self.guard not in get_args(Guard):
            raise ValueError(
                f"guard is one of {', '.join(get_args(Guard))}; got {self.guard!r}."
            )
        n, d = student.shape[1:]
        m, e = teacher.shape[1:]
        if self.head_dim is None and d % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide a width of {d}.")
        width = self.head_dim or d // self.num_heads
        student = keep_rows(promote(student), student_mask)
        teacher = keep_rows(promote(teacher), teacher_mask)
        query = student if self.guard == "none" else jax.lax.stop_gradient(student)

        def project(x: Array, name: str) -> Float[Array, "b h i k"]:
            heads = (self.num_heads, width)
            layer = nn.DenseGeneral(heads, use_bias=False, name=name)
            return layer(x).transpose(0, 2, 1, 3)

        q = project(query, "query")
        k, v = project(teacher, "key"), project(teacher, "value")
        scores = jnp.einsum("bhnk,bhmk->bhnm", q, k) * width**-0.5
        if teacher_mask is not None:
            least = jnp.finfo(scores.dtype).min
            scores = jnp.where(teacher_mask[:, None, None, :], scores, least)
        attention = jax.nn.softmax(scores, axis=-1)
        heads = jnp.einsum("bhnm,bhmk->bnhk", attention, v)
        aligned = nn.DenseGeneral(d, axis=(-2, -1), use_bias=False, name="out")(heads)
        out = {"attention": attention}
        if self.num_classes:
            pooled = masked_mean(aligned, student_mask)
            out["probe"] = nn.Dense(self.num_classes, name="probe")(pooled)
        if self.guard == "reconstruct_teacher":
            segments = min(self.num_segments, n, m)
            own = pool_tokens(aligned, segments, student_mask)
            out["reconstruction"] = nn.Dense(e, name="reconstruct")(own)
            out["target"] = pool_tokens(teacher, segments, teacher_mask)
            learn = 0.0
        if self.guard in ("reconstruct_teacher", "freeze_after_warmup"):
            stopped = jax.lax.stop_gradient(aligned)
            aligned = stopped + learn * (aligned - stopped)
        return out | {"aligned": aligned}


class LayerRouter(nn.Module):
    """Mixes a teacher's layers into one target per example, by learned weights.

        g_l = LN(mean over tokens of H_l),  score_l = MLP(g_l) + b_l
        alpha = softmax_l(score / temperature),  mixed = sum_l alpha_l LN(H_l)

    The MLP is shared by the layers. With a mimic loss alone the weights settle on the
    layer that is easiest to imitate. So `mixed` is stopped, and the router learns from
    a linear probe on the mean of the mixture: a term `cross_entropy` of "probe", best
    on training subjects that the teacher was not tuned on (the term's `count`), and
    `negative_entropy` of "alpha" at first. The rival to beat is "static_softmax", the
    biases b_l alone.

    Where many layers tell the classes, "input" weights may end as a code: one layer for
    each class, other ones for each seed, which the probe reads as well as the layers'
    own content. Then alpha has little entropy and much variance over windows.

    Attributes:
        mode: "input", "static_softmax", or fixed weights: "mean" or "last".
        hidden: Width of the MLP.
        temperature: Temperature of the softmax; a call may give an annealed one.
        normalise: True if layers are standardised before the mixture.
        stop_gradient: True if "mixed" is stopped.
        num_classes: Classes of the probe; 0 is none.

    References:
        DLink, arXiv 2604.15016 (a reconstruction).
    """

    mode: RouterMode = "input"
    hidden: int = 64
    temperature: float = 1.0
    normalise: bool = True
    stop_gradient: bool = True
    num_classes: int = 0

    @nn.compact
    def __call__(
        self,
        layers: Sequence[Float[Array, "b n d"]],
        mask: Bool[Array, "b n"] | None = None,
        *,
        temperature: float | Float[Array, ""] | None = None,
    ) -> Tensors:
        """Returns `mixed [b, n, d]`, `alpha [b, l]` and, if asked, `probe [b, k]`."""
        if self.mode not in get_args(RouterMode):
            raise ValueError(
                f"mode is one of {', '.join(get_args(RouterMode))}; got {self.mode!r}."
            )
        layers = [keep_rows(promote(layer), mask) for layer in layers]
        shape = (layers[0].shape[0], len(layers))
        scores = jnp.zeros(shape, layers[0].dtype)
        if self.mode == "last":
            # Far below any other: their weight is exactly zero.
            scores = scores.at[:, :-1].set(-jnp.inf)
        if self.mode in ("input", "static_softmax"):
            bias = self.param("bias", nn.initializers.zeros, (len(layers),))
            scores = scores + bias
        if self.mode == "input":
            pooled = [masked_mean(layer, mask) for layer in layers]
            hidden = nn.Dense(self.hidden, name="hidden")(
                standardise(jnp.stack(pooled, axis=1))
            )
            scores = scores + nn.Dense(1, name="score")(gelu(hidden))[..., 0]
        alpha = jax.nn.softmax(
            scores / (self.temperature if temperature is None else temperature)
        )
        mixed = mix_layers(layers, alpha, normalise=self.normalise)
        out = {"alpha": alpha}
        if self.num_classes:
            pooled = masked_mean(mixed, mask)
            out["probe"] = nn.Dense(self.num_classes, name="probe")(pooled)
        if self.stop_gradient:
            mixed = jax.lax.stop_gradient(mixed)
        return out | {"mixed": mixed}


class RoutedTarget(nn.Module):
    """Mixes a teacher's layers, and decodes a compressed sequence to the mixture.

    A student's loss by compression shows in what a linear map can still read.

    Attributes:
        router: Router of the layers.
        num_patches: Patches of the teacher's grid, whose tokens are channel-major.
        decode: True if there is a decoder.
        channels: Rows of the grid that the student sees; () is all. Weights and probe
            are of all.

    References:
        DLink, arXiv 2604.15016 (a reconstruction).
    """

    router: LayerRouter
    num_patches: int
    decode: bool = False
    channels: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, compressed: Float[Array, "b s e"], *layers: Float[Array, "b n d"]
    ) -> Tensors:
        """Returns the router's tensors; with a decoder "decoded" and "target" too.

        Both are `[b, s, d]`; the target is the mixture's mean over channels, averaged
        over neighbouring patches where the sequence is shorter.
        """
        out = self.router(layers)
        b, n, d = out["mixed"].shape
        if n % self.num_patches:
            raise ValueError(f"{n} tokens are no grid of {self.num_patches} patches.")
        grid = out["mixed"].reshape(b, -1, self.num_patches, d)
        if self.channels:
            grid = grid[:, np.array(self.channels)]
            out["mixed"] = grid.reshape(b, -1, d)
        if not self.decode:
            return out
        over_channels = grid.mean(axis=1)
        target = pool_tokens(over_channels, compressed.shape[1])
        decoded = nn.Dense(d, name="decode")(promote(compressed))
        return out | {"decoded": decoded, "target": target}


class TokenProjector(nn.Module):
    """Projects student tokens to the teacher's width, for losses that need one width.

    The student's side is the safe one: a projector trained on the teacher's can shrink
    or align both sides to a constant.

    Attributes:
        dim: The teacher's width.
        hidden: Width of a hidden layer with GELU; None is a linear map.
    """

    dim: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *n d"]) -> Float[Array, "b *n e"]:
        """Returns tokens of width `dim`, in float32 or wider."""
        x = promote(x)
        if self.hidden is not None:
            x = gelu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(self.dim, name="dense")(x)


def pool_tokens(
    x: Float[Array, "b n d"], num: int, mask: Bool[Array, "b n"] | None = None
) -> Float[Array, "b r d"]:
    """Averages kept tokens over `num` equal stretches of their sequence.

    A token that lies across two stretches counts in both, by its parts. Zero where a
    mask keeps none.
    """
    b, n, _ = x.shape
    kept = jnp.ones((b, n), bool) if mask is None else mask
    end = jnp.cumsum(kept, axis=1).astype(x.dtype)
    count = jnp.maximum(end[:, -1:], 1)
    edge = jnp.arange(num + 1, dtype=x.dtype) / num * count  # [b, r + 1]
    upper = jnp.minimum(end[:, None, :], edge[:, 1:, None])
    lower = jnp.maximum(end[:, None, :] - 1, edge[:, :-1, None])
    share = jnp.maximum(upper - lower, 0) * kept[:, None, :] * num / count[..., None]
    return jnp.einsum("brn,bnd->brd", share, keep_rows(x, mask))
