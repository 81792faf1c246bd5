"""Views of a window: small random changes that the window's id decides.

View v of a window is a pure function of (seed, window_id, v), in whatever batch it is
computed: so a teacher's stored output and a student's input show the same samples.
"""

import dataclasses

import numpy as np

from eegkd.errors import InputError

_WORD = 2**64


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training windows; all zero, the default, is none.

    Attributes:
        scale: All samples of a window are multiplied by one factor, uniform in
            [1 - scale, 1 + scale].
        shift: Largest shift in time, as a share of the window; the ends are mirrored.
        channel_dropout: Chance that a channel is set to zero; one always stays.
        noise: Standard deviation of Gaussian noise, as a share of the channel's own.
        seed: Seed of the views.
        num_views: Number of views per window; epoch e shows view e modulo this. 0 is a
            fresh view every epoch, for which the teacher must run online.
    """

    scale: float = 0.0
    shift: float = 0.0
    channel_dropout: float = 0.0
    noise: float = 0.0
    seed: int = 0
    num_views: int = 4

    def __post_init__(self) -> None:
        """Checks the ranges."""
        limits = {"scale": 1.0, "shift": 0.5, "channel_dropout": 1.0, "noise": np.inf}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value < limit:
                raise InputError(
                    f"--augment.{name} {value}: it is at least 0 and below {limit:g}."
                )
        for name in ("seed", "num_views"):
            if getattr(self, name) < 0:
                raise InputError(f"--augment.{name} is at least 0.")

    @property
    def active(self) -> bool:
        """True if anything is changed."""
        return any((self.scale, self.shift, self.channel_dropout, self.noise))

    @property
    def views(self) -> int:
        """Number of views per window; 0 where every epoch has a fresh one."""
        return self.num_views if self.active else 1

    def view(self, epoch: int) -> int:
        """Returns the view that an epoch shows."""
        return epoch % self.views if self.views else epoch


UNCHANGED = AugmentConfig()


def augment(
    signal: np.ndarray,
    window_ids: np.ndarray,
    views: np.ndarray | int,
    config: AugmentConfig,
) -> np.ndarray:
    """Computes one view of every window.

    Args:
        signal: `f32[b, c, t]`.
        window_ids: `[b]`.
        views: One for all, or `[b]`.
        config: Changes, and their sizes.

    Returns:
        `f32[b, c, t]`, a new array; the signal itself where nothing is changed.
    """
    if not config.active:
        return signal
    views = np.broadcast_to(views, len(signal))
    out = np.empty_like(signal)
    for i, (window, view) in enumerate(zip(window_ids, views, strict=True)):
        seeds = [config.seed, int(window) % _WORD, int(view)]
        out[i] = _change(signal[i], np.random.default_rng(seeds), config)
    return out


def _change(
    signal: np.ndarray, rng: np.random.Generator, config: AugmentConfig
) -> np.ndarray:
    c, t = signal.shape
    # Every number is drawn whether used or not: turning one change on does not alter
    # the others. Noise, which needs many, comes last.
    factor = np.float32(1 + config.scale * rng.uniform(-1, 1))
    shift = round(config.shift * t * rng.uniform(-1, 1))
    dropped = rng.random(c) < config.channel_dropout
    dropped[rng.integers(c)] = False
    out = signal
    if shift:
        out = out[:, _mirrored(np.arange(t) - shift, t)]
    if config.noise:
        noise = rng.standard_normal((c, t), dtype=np.float32)
        std = out.std(axis=1, keepdims=True, dtype=np.float32)
        out = out + np.float32(config.noise) * std * noise
    return np.where(dropped[:, None], np.float32(0), factor * out)


def _mirrored(places: np.ndarray, t: int) -> np.ndarray:
    """Folds places before the start or after the end back into [0, t)."""
    places = np.abs(places)
    return np.where(places >= t, 2 * (t - 1) - places, places)
