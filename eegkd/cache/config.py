"""How the outputs of earlier stages are kept."""

import dataclasses
from typing import Literal

from eegkd.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The teacher's outputs on disk, for `--train.teacher cached`.

    Attributes:
        folder: Caches that runs share, each in a folder named by its key; empty: in
            the run folder, removed when the fold is finished.
        form: How numbers are stored. bfloat16 keeps 8 bits of precision; int8 has a
            scale a token vector. The error is measured and printed.
        pool: Average so many neighbouring tokens to one. The loss sees fewer tokens.
        rank: Keep so many principal components of a token vector; read back at full
            width. 0 keeps it whole.
        tensors: Tensors (as teacher.tokens) that `form`, `pool` and `rank` are for;
            empty: all that have tokens. Logits stay exact unless named.
        limit_gb: Refuse a larger cache, in GB (1e9 bytes).
        given: A folder of another framework's outputs: window_id.npy, and a
            stage.tensor.npy each. A stage that is given is not trained.
        verify: Check an existing cache by content, or by sizes alone.
    """

    folder: str = ""
    form: Literal["float32", "bfloat16", "int8"] = "float32"
    pool: int = 1
    rank: int = 0
    tensors: tuple[str, ...] = ()
    limit_gb: float = 50.0
    given: str = ""
    verify: Literal["sha256", "size"] = "sha256"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.pool < 1 or self.rank < 0 or self.limit_gb <= 0:
            raise InputError(
                "--cache.pool is at least 1, --cache.rank at least 0, and "
                "--cache.limit_gb above 0."
            )
