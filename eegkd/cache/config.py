"""Options of the teacher cache."""

import dataclasses
from typing import Literal

from eegkd.errors import InputError
from eegkd.host.paths import PathText


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The teacher's outputs on disk, for `--train.teacher cached`.

    Attributes:
        folder: Folder of caches that runs share, each named by its key; empty: in the
            run folder, removed when the fold is finished.
        form: Number format. bfloat16 keeps 8 bits of precision; int8 has one scale per
            token vector. The error is measured and printed.
        pool: Average this many neighbouring tokens to one. The loss sees fewer tokens.
        rank: Principal components to keep of a token vector; read back at full width.
            0 keeps it whole.
        tensors: Tensors (as teacher.tokens) that `form`, `pool` and `rank` are for;
            empty: all that have tokens. Logits stay exact unless named.
        limit_gb: Refuse a larger cache, in GB (1e9 bytes).
        given: Folder of another framework's outputs: window_id.npy, and one
            stage.tensor.npy per tensor. Their stages are not trained.
        verify: Check an existing cache by content, or by sizes alone.
    """

    folder: PathText = ""
    form: Literal["float32", "bfloat16", "int8"] = "float32"
    pool: int = 1
    rank: int = 0
    tensors: tuple[str, ...] = ()
    limit_gb: float = 50.0
    given: PathText = ""
    verify: Literal["sha256", "size"] = "sha256"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.pool < 1 or self.rank < 0 or self.limit_gb <= 0:
            raise InputError(
                "--cache.pool is at least 1, --cache.rank at least 0, and "
                "--cache.limit_gb above 0."
            )
