"""What is cut from recordings and how, and how a teacher's outputs are kept."""

import dataclasses
from typing import Literal

from eegkd.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Corpus and preprocessing; None or () takes the corpus's own default.

    Attributes:
        corpus: Its name: synthetic, eegmat, bonn, scalp, chbmit; of your own files,
            folder (recordings) or arrays (windows that are cut already); with the
            windows and splits of CBraMod's suite, mentalarithmetic, eegmmidb, bciciv2a,
            mumtaz2016.
        root: The folder that holds the recordings; empty: the corpus's folder in
            $EEGKD_REAL_DATA (eegmat, seizure_bonn, seizure_scalp, seizure_chbmit,
            mi_eegmmidb).
        channels: Channels (or bipolar pairs "F3-C3") to keep, in this order.
        montage: How to re-reference.
        policy: What to do where a wanted channel is missing.
        rate: Resample to this many samples a second.
        band: Band-pass edges in Hz; 0 is no edge, 0 0 no filter.
        notch: Line frequency to remove, in Hz; 0 removes none.
        filter_order: Of the zero-phase Butterworth band-pass.
        zscore: Scope of the normalisation; train_set is fitted at load.
        window_s: Window length in seconds.
        overlap: Share of a window that the next one repeats; training only.
        positive_fraction: A window takes an event's label if at least this share of
            the window lies inside it.
        unit: Unit of a folder's files where they state none.
        world: Of the synthetic corpus.
        seed: Of the synthetic corpus: which patients are drawn.
        workers: Processes that read recordings; 0 is one a core.
    """

    corpus: str = "synthetic"
    root: str = ""
    channels: tuple[str, ...] = ()
    montage: Literal["referential", "average", "double_banana"] | None = None
    policy: Literal["error", "interpolate", "mask"] = "error"
    rate: float | None = None
    band: tuple[float, float] | None = None
    notch: float | None = None
    filter_order: int = 4
    zscore: Literal["window", "recording", "train_set", "none"] = "window"
    window_s: float | None = None
    overlap: float | None = None
    positive_fraction: float = 0.5
    unit: Literal["uV", "mV", "V"] | None = None
    world: Literal["transfer", "null", "layered", "layered_null"] = "transfer"
    seed: int = 0
    workers: int = 0


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
        tensors: Which tensors (as teacher.tokens) `form`, `pool` and `rank` are for;
            empty: all that have tokens. Logits stay exact unless named.
        limit_gb: Refuse a larger cache, in GB (1e9 bytes).
        given: A folder of another framework's outputs: window_id.npy, and a
            stage.tensor.npy each. A stage that is given is not trained.
        verify: Check a cache that is there by content, or by sizes alone.
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
