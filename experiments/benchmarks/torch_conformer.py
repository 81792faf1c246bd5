"""The Conformer in PyTorch: what the benchmark and the parity test compare with."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eegkd.models.conformer import ConformerConfig
from eegkd.ops.depthwise import same_padding


class FeedForward(nn.Module):
    """LayerNorm, Linear, SiLU, dropout, Linear, dropout."""

    def __init__(self, cfg: ConformerConfig) -> None:
        """Builds the layers."""
        super().__init__()
        d = cfg.dim
        self.norm = nn.LayerNorm(d)
        self.up = nn.Linear(d, cfg.ffn_mult * d)
        self.down = nn.Linear(cfg.ffn_mult * d, d)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branch, before its residual sum."""
        return self.drop(self.down(self.drop(F.silu(self.up(self.norm(x))))))


class Attention(nn.Module):
    """Self-attention with Transformer-XL relative positions."""

    def __init__(self, cfg: ConformerConfig) -> None:
        """Builds the layers."""
        super().__init__()
        d = cfg.dim
        self.heads = (cfg.num_heads, d // cfg.num_heads)
        self.norm = nn.LayerNorm(d)
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.position = nn.Linear(d, d, bias=False)
        self.u = nn.Parameter(0.02 * torch.randn(self.heads))
        self.v = nn.Parameter(0.02 * torch.randn(self.heads))
        self.out = nn.Linear(d, d)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Signal tokens attend to themselves and to the prompts `side`."""
        b, n, d = x.shape
        x, side = self.norm(x), self.norm(side)
        q = self.query(x)
        k, v = (
            torch.cat([layer(x), layer(side).expand(b, -1, -1)], dim=1)
            for layer in (self.key, self.value)
        )
        q, k, v = (a.view(b, -1, *self.heads).transpose(1, 2) for a in (q, k, v))
        r = self.position(self.sinusoids(n, d)).view(-1, *self.heads).transpose(0, 1)
        scores = (q + self.u[:, None]) @ k.transpose(-1, -2)
        by_offset = (q + self.v[:, None]) @ r.transpose(-1, -2)
        flat = F.pad(by_offset, (1, 0)).flatten(2)[..., n:]
        shifted = flat.view(b, self.heads[0], n, 2 * n - 1)[..., :n]
        scores = scores + F.pad(shifted, (0, side.shape[1]))
        weights = torch.softmax(scores / self.heads[1] ** 0.5, dim=-1)
        out = (weights @ v).transpose(1, 2).reshape(b, n, d)
        return self.drop(self.out(out))

    def sinusoids(self, n: int, d: int) -> Tensor:
        """Returns sines and cosines of the offsets `n - 1, ..., 1 - n`."""
        like = self.u
        offsets = torch.arange(n - 1, -n, -1, dtype=like.dtype)
        steps = torch.arange(0, d, 2, dtype=like.dtype)
        angles = offsets[:, None] * 10_000.0 ** (-steps / d)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConvModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, GroupNorm, SiLU, pointwise, dropout."""

    def __init__(self, cfg: ConformerConfig) -> None:
        """Builds the layers."""
        super().__init__()
        d = cfg.dim
        self.norm = nn.LayerNorm(d)
        self.pointwise_in = nn.Linear(d, 2 * d)
        self.depthwise = nn.Conv1d(d, d, cfg.kernel, padding="same", groups=d)
        self.inner_norm = nn.GroupNorm(1, d)
        self.pointwise_out = nn.Linear(d, d)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branch, before its residual sum."""
        x = F.glu(self.pointwise_in(self.norm(x)))
        x = self.inner_norm(self.depthwise(x.transpose(1, 2)))
        return self.drop(self.pointwise_out(F.silu(x).transpose(1, 2)))


class Block(nn.Module):
    """A Conformer block with its own prompts."""

    def __init__(self, cfg: ConformerConfig) -> None:
        """Builds the layers."""
        super().__init__()
        self.prompts = nn.Parameter(0.02 * torch.randn(cfg.num_prompts, cfg.dim))
        self.ffn_in = FeedForward(cfg)
        self.attention = Attention(cfg)
        self.conv = ConvModule(cfg)
        self.ffn_out = FeedForward(cfg)
        self.norm = nn.LayerNorm(cfg.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps signal tokens to signal tokens."""
        side = self.prompts[None]
        side = side + 0.5 * self.ffn_in(side)
        x = x + 0.5 * self.ffn_in(x)
        x = x + self.attention(x, side)
        x = x + self.conv(x)
        return self.norm(x + 0.5 * self.ffn_out(x))


class TorchConformer(nn.Module):
    """The default `Conformer` (conv1d stem, GroupNorm, mean pooling), for parity."""

    def __init__(self, cfg: ConformerConfig) -> None:
        """Builds the layers."""
        super().__init__()
        self.cfg = cfg
        widths = (cfg.n_chans, cfg.dim)
        self.stem = nn.ModuleList(
            nn.Conv1d(width, cfg.dim, kernel, stride)
            for width, kernel, stride in zip(
                widths, cfg.stem_kernels, cfg.stem_strides, strict=True
            )
        )
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Returns `embed`, `block_i`, `tokens` and `pooled`."""
        sizes = zip(self.cfg.stem_kernels, self.cfg.stem_strides, strict=True)
        for conv, (kernel, stride) in zip(self.stem, sizes, strict=True):
            pads = same_padding(x.shape[2], kernel, stride)
            x = F.gelu(conv(F.pad(x, pads)))
        x = x.transpose(1, 2)
        out = {"embed": x}
        for i, block in enumerate(self.blocks):
            x = block(x)
            out[f"block_{i}"] = x
        return out | {"tokens": x, "pooled": x.mean(dim=1)}


def jax_parameters(
    model: TorchConformer, *, gradients: bool = False
) -> dict[str, Mapping]:
    """Renames parameters (or their gradients) to the tree of `Conformer`."""
    tree: dict = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if gradients else parameter
        if value is None:
            raise ValueError(f"{name} has no gradient.")
        array = value.detach().numpy()
        *path, leaf = name.split(".")
        if path[0] == "stem":
            path = ["stem", f"conv_{path[1]}", "conv"]
        elif path[0] == "blocks":
            path = [f"block_{path[1]}", *path[2:]]
        if leaf == "weight":
            leaf = "scale" if "norm" in path[-1] else "kernel"
            if array.ndim == 3:
                array = array.transpose(2, 1, 0)
                array = array[:, 0] if path[-1] == "depthwise" else array
            elif array.ndim == 2:
                array = array.T
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = array
    return tree
