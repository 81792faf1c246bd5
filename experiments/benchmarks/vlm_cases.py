"""Cases of the benchmark of decoders: sizes and batches."""

import dataclasses

import numpy as np

RANK, ALPHA = 16, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A decoder and its batches.

    Attributes:
        name: Name of the rows.
        family: "llama" or "qwen2".
        dim: Width.
        depth: Layers.
        num_heads: Heads of queries.
        num_kv_heads: Heads of keys and values.
        ffn_dim: Width of the feed-forward layer.
        vocab_size: Words.
        batch: Rows.
        prompt: Tokens of a prompt.
        new: Tokens that follow it.
        length: Tokens of a row to train on.
    """

    name: str
    family: str
    dim: int = 512
    depth: int = 8
    num_heads: int = 8
    num_kv_heads: int = 8
    ffn_dim: int = 1376
    vocab_size: int = 8000
    batch: int = 4
    prompt: int = 256
    new: int = 64
    length: int = 256

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.num_heads


CASES = (
    Case(name="LLaMA 512 x 8", family="llama"),
    Case(name="Qwen2 512 x 8, 2 of 8 heads", family="qwen2", num_kv_heads=2),
)
QUICK = tuple(
    dataclasses.replace(
        case,
        name=f"{case.family}, quick",
        dim=64,
        depth=2,
        num_heads=4,
        num_kv_heads=2 if case.family == "qwen2" else 4,
        ffn_dim=96,
        vocab_size=256,
        batch=2,
        prompt=16,
        new=4,
        length=16,
    )
    for case in CASES
)
PREFILL, GENERATE, RECOMPUTE, STEP, REMAT = (
    "prefill",
    "prefill and decode",
    "decode, recomputed",
    "LoRA step",
    "LoRA step, recomputing layers",
)
"""One read of the prompts; that, and new tokens by a cache; one new token without a
cache; a training step of adapters; the same with `remat` or gradient checkpointing."""
WAYS = (PREFILL, GENERATE, RECOMPUTE, STEP, REMAT)


def count_tokens(case: Case, way: str) -> int:
    """Returns the tokens that one call reads to learn from, or writes.

    The first token that is written comes of the prefill. A recomputed token is one more
    for every row, from all that stand before it; the middle of the text is taken for
    all.
    """
    each = {PREFILL: case.prompt, GENERATE: case.new - 1, RECOMPUTE: 1}
    return case.batch * each.get(way, case.length)


def middle(case: Case) -> int:
    """Returns how many tokens stand before one in the middle of what is written."""
    return case.prompt + case.new // 2


def make_ids(case: Case, length: int) -> np.ndarray:
    """Draws token ids."""
    rng = np.random.default_rng(0)
    return rng.integers(1, case.vocab_size, (case.batch, length)).astype(np.int32)
