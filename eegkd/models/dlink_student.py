"""DLink's student: reach the teacher's tokens first, then compress space and time.

One design serves every grid of channels and patches. There is no layer over flattened
tokens, which is most of a fine-tuned foundation model.

Reference:
    DLink, arXiv 2604.15016 (a reconstruction; sizes are ours).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.cbramod import PatchEmbedding
from eegkd.models.grid import GridConfig, GridConv, split_patches, uniform_fan_in
from eegkd.models.layers import Dropout, LayerNorm, gelu
from eegkd.ops.depthwise import depthwise_conv1d
from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Float, Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class DlinkStudentConfig(GridConfig):
    """Sizes of a student; the defaults have about 0.09 M parameters.

    Attributes:
        filters: Filters of the convolutions that embed a patch; tokens are 8 times as
            wide, which has to be the teacher's width: a system sets it.
        groups: Groups of their GroupNorms.
        mimic_blocks: Residual blocks at the teacher's width.
        mimic_kernel: Channels and patches that a block's convolution spans, both odd.
        mimic_hidden: Width inside a block; 0 is a quarter of the tokens'.
        compress_width: Features that a token is reduced to.
        spatial_multiplier: Spatial filters for each of them.
        temporal_stride: Patches per step of the compressed sequence.
        dropout: Rate before the last layer; 0.25 to 0.5.
        norm: Norm of the compressing layers: GroupNorm, or BatchNorm.
        norm_groups: Groups of GroupNorm.
        momentum: Momentum of BatchNorm's running statistics.
        order: `compress_only` leaves the mimic blocks out.
        spectrum: True if a patch is embedded by its spectrum too; without, a device
            needs no Fourier transform.
        num_classes: Logits; 1 for a binary task.
    """

    filters: int = 25
    groups: int = 5
    mimic_blocks: int = 1
    mimic_kernel: tuple[int, int] = (7, 3)
    mimic_hidden: int = 0
    compress_width: int = 32
    spatial_multiplier: int = 2
    temporal_stride: int = 1
    dropout: float = 0.25
    norm: Literal["group", "batch"] = "group"
    norm_groups: int = 8
    momentum: float = 0.9
    order: Literal["project_compress", "compress_only"] = "project_compress"
    spectrum: bool = True
    num_classes: int = 2

    def __post_init__(self) -> None:
        """Checks the sizes."""
        super().__post_init__()
        if self.filters % self.groups or self.compress_width % self.norm_groups:
            raise ValueError(
                "groups must divide filters, and norm_groups compress_width; got "
                f"{self.groups}, {self.filters}, {self.norm_groups}, "
                f"{self.compress_width}."
            )
        least = min(self.spatial_multiplier, self.temporal_stride, self.num_classes)
        if least < 1 or min(self.mimic_blocks, self.mimic_hidden) < 0:
            raise ValueError(f"A size of {self} is out of range.")

    @property
    def dim(self) -> int:
        """Width of a token."""
        return 8 * self.filters

    @property
    def num_blocks(self) -> int:
        """Number of mimic blocks."""
        return 0 if self.order == "compress_only" else self.mimic_blocks

    @property
    def num_steps(self) -> int:
        """Length of the compressed sequence."""
        return -(-self.num_patches // self.temporal_stride)


class MimicBlock(nn.Module):
    """Adds a convolution over the grid and a narrow MLP to the tokens."""

    kernel: tuple[int, int]
    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b c n d"]) -> Float[Array, "b c n d"]:
        """Returns `x + up(gelu(down(norm(conv(x)))))`."""
        y = GridConv(self.kernel, self.dtype, name="conv")(x)
        y = LayerNorm(dtype=self.dtype, name="norm")(y)
        y = gelu(nn.Dense(self.hidden, dtype=self.dtype, name="down")(y))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="up")(y)


class DlinkStudent(nn.Module):
    """Embeds patches, mimics the teacher's tokens, compresses, classifies.

    With BatchNorm, running statistics are the collection `batch_stats`.
    """

    cfg: DlinkStudentConfig

    @property
    def grid(self) -> tuple[int, int]:
        """Channels and patches that the tokens stand for."""
        return self.cfg.grid

    @nn.compact
    def __call__(self, x: Float[Array, "b c t"], *, train: bool = False) -> Tensors:
        """Encodes windows.

        Args:
            x: Signal at 200 Hz, in the unit of `cfg.scale`.
            train: True if dropout acts and BatchNorm uses the batch.

        Returns:
            At the teacher's width `embed`, `block_i` and `tokens` (the last of them),
            `[b, c n, d]`; then `narrow [b, c n, w]`, `spatial [b, n, w m]`, `temporal`
            and `compressed [b, steps, w m]`, their mean `pooled`, and `logits`.

        Raises:
            ValueError: If the signal is not of the configured grid.
        """
        cfg, dtype = self.cfg, self.cfg.act_dtype
        (c, n), d = cfg.grid, cfg.dim
        embedding = PatchEmbedding(
            cfg.filters, cfg.groups, 0.0, dtype, spectrum=cfg.spectrum, name="embed"
        )
        x = embedding(split_patches(x, cfg), train=train)
        out = {"embed": x}
        for i in range(cfg.num_blocks):
            hidden = cfg.mimic_hidden or d // 4
            x = MimicBlock(cfg.mimic_kernel, hidden, dtype, name=f"block_{i}")(x)
            out[f"block_{i}"] = x
        out["tokens"] = x
        x = nn.Dense(cfg.compress_width, dtype=dtype, name="narrow")(x)
        x = nn.elu(self._norm("narrow_norm", train)(x))
        out["narrow"] = x
        out = {name: y.reshape(-1, c * n, y.shape[-1]) for name, y in out.items()}
        out["spatial"] = x = self._over_channels(x, train)
        width = x.shape[-1]
        taps = self.param("temporal", uniform_fan_in(3), (3, width))
        out["temporal"] = x = depthwise_conv1d(x, taps)[:, :: cfg.temporal_stride]
        out["compressed"] = x = nn.elu(nn.Dense(width, dtype=dtype, name="mix")(x))
        out["pooled"] = pooled = promote(x).mean(axis=1)
        pooled = Dropout(cfg.dropout)(pooled, train=train)
        return out | {"logits": nn.Dense(cfg.num_classes, name="head")(pooled)}

    def _over_channels(self, x: Float[Array, "b c n w"], train: bool) -> Array:
        """Filters over the channels, several per feature: [b, n, w m]."""
        cfg, (b, c, n, w) = self.cfg, x.shape
        init, width = uniform_fan_in(c), w * cfg.spatial_multiplier
        kernel = self.param("spatial", init, (c, w, cfg.spatial_multiplier))
        bias = self.param("spatial_bias", init, (width,))
        y = jnp.einsum("bcnw,cwm->bnwm", x, kernel.astype(x.dtype))
        y = y.reshape(b, n, width) + bias.astype(x.dtype)
        return nn.elu(self._norm("spatial_norm", train)(y))

    def _norm(self, name: str, train: bool) -> nn.Module:
        cfg = self.cfg
        if cfg.norm == "group":
            groups, dtype = cfg.norm_groups, cfg.act_dtype
            return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=cfg.momentum,
            dtype=cfg.act_dtype,
            name=name,
        )
