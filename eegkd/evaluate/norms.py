"""What the recordings of a training set are like, and how another one differs.

Every window is described by numbers that do not depend on its classes: the amplitude of
its middle channel, how far the loudest and the quietest channel are from that, and the
share of its power in each band. A recording's value is the median over its windows.

The rule. Values are compared as logarithms. Over the training recordings, each person
counting once, a value has a mean m and a standard deviation s. A recording is unlike
them in a value that differs from m by more than L s, where L is the larger of

* `t (1 - 0.01 / 2F) sqrt(1 + 1/P)`: the prediction interval of Student's t with P - 1
  degrees of freedom for P people, so that a further recording has any of its F values
  outside once in 100 times where values are normally distributed;
* the largest deviation, over a training recording's values, that 2 in 100 of the
  training recordings exceed: whatever the distribution, a recording of the same kind
  is then called unlike about twice in 100 times.

With few people the first is wide (L = 28 for three, 4.9 for ten, 3.3 for a hundred),
and of one person it says nothing. s is at least 0.05, so that 15 % at L = 3 never
matters where all recordings are alike. The median over a few windows varies more than
the median over many: a recording that is shorter than those of the training set is
allowed the spread of single windows within a recording too, in the share

    min(1, 30 s / its length) - min(1, 30 s / the training set's usual length).

The rate as recorded and the units of the channels have no spread: a rate outside those
of the training recordings is named, and so is a channel in another unit.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from eegkd.evaluate.baselines import band_power, bands_within

LEVELS = (0.0, 0.005, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.995, 1.0)
"""Quantiles of the training windows that are kept."""

AMPLITUDE, LOUDEST, QUIETEST = "amplitude", "loudest channel", "quietest channel"
_ERROR, _TAIL = 0.01, 0.02
_LEAST_SPREAD = 0.05
_STEADY_S = 30.0
_RATE_TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
    """One value of the training recordings; logarithms but for the quantiles.

    Attributes:
        name: Name of the value.
        mean: Mean over recordings, each person counting once.
        spread: Standard deviation over recordings.
        within: Robust standard deviation of the windows of one recording.
        quantiles: At `LEVELS`, of all training windows.
    """

    name: str
    mean: float
    spread: float
    within: float
    quantiles: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norms:
    """What the training recordings of a model are like.

    Attributes:
        channels: Channels, in order.
        units: Their units before any z-score; () where unknown.
        rates: Rates that recordings were made at; () where unknown.
        passband: Band of the preprocessing, in Hz.
        seconds: Median length of a recording.
        num_recordings: Recordings.
        num_people: People; recordings where nobody is named.
        num_windows: Windows that the quantiles are of.
        limit: L of the rule; None where it is undefined.
        values: Norm of each value.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    rates: tuple[float, ...]
    passband: tuple[float, float]
    seconds: float
    num_recordings: int
    num_people: int
    num_windows: int
    limit: float | None
    values: tuple[Norm, ...]


class Compared(NamedTuple):
    """One value of a recording beside those of the training set.

    Attributes:
        name: Name of the value.
        unit: Unit of the numbers; "%" is a share of the power.
        value: The recording's.
        low: Least value that is like the training set; None where nothing is known.
        high: Largest one.
        below: Share of the training windows with a smaller value; None where unknown.
        text: What is said of it, where numbers do not.
    """

    name: str
    unit: str
    value: float
    low: float | None
    high: float | None
    below: float | None = None
    text: str = ""

    @property
    def unlike(self) -> bool:
        """True if the value is outside the range."""
        if self.low is None or self.high is None:
            return False
        return not self.low <= self.value <= self.high

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "Value": self.value,
            "Units": self.unit,
            "Low": self.low,
            "High": self.high,
            "ShareOfTrainingWindowsBelow": self.below,
        }

    @property
    def times(self) -> float:
        """How many times it is above the range, or below it; 1 within."""
        if self.low is None or self.high is None:
            return 1.0
        if not self.unlike:
            return 1.0
        over = self.value > self.high
        most, least = (self.value, self.high) if over else (self.low, self.value)
        return most / least if least > 0 else math.inf

    @property
    def words(self) -> str:
        """The value, and how far it lies from the nearer end of the range."""
        if self.text or self.low is None or self.high is None:
            return self.text or f"{self.name} {_number(self.value)} {self.unit}"
        known = _number(self.low)
        if _number(self.high) != known:
            known = f"{known} to {_number(self.high)}"
        far = f"{self.times:.2g} times " if self.times > 1.1 else ""
        side = "above" if self.value > self.high else "below"
        return f"{self.name} {_number(self.value)} {self.unit}, {far}{side} {known}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def window_values(
    signal: Float[np.ndarray, "n c t"],
    rate: float,
    passband: tuple[float, float],
    scale: Float[np.ndarray, "n c"] | None,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Computes the values of windows, as logarithms.

    Args:
        signal: Windows as a model takes them.
        rate: Samples per second.
        passband: Band of the preprocessing; an upper edge of 0 is none.
        scale: What each channel was divided by, which gives its size back; None where
            nobody knows, and there are no amplitudes.

    Returns:
        Name -> one number per window: amplitudes (standard deviations) of the middle
        channel in the signal's unit, of the loudest and the quietest relative to it,
        and each band's share of the power, of the middle channel.
        A channel without a signal is left out; NaN where all are.
    """
    low, high = passband[0], passband[1] or rate / 2
    n, c, t = signal.shape
    bands = bands_within(t, rate, (low, high))
    std = signal.std(axis=2, dtype=np.float64)
    found = {}
    if scale is not None:
        size = _log(std * scale)
        middle = _over_channels(np.nanmedian, size)
        found[AMPLITUDE] = middle
        if c > 1:
            found[LOUDEST] = _over_channels(np.nanmax, size) - middle
            found[QUIETEST] = _over_channels(np.nanmin, size) - middle
    if bands:
        edges = [(max(first, low), min(last, high)) for first, last in bands]
        density = band_power(signal, rate, relative=False, passband=(low, high))
        power = np.exp(density.astype(np.float64).reshape(n, c, -1))
        power *= [last - first for first, last in edges]
        share = np.log(power / power.sum(axis=2, keepdims=True))
        share[~(std > 0)] = np.nan
        for i, (first, last) in enumerate(edges):
            found[f"{first:g}-{last:g} Hz"] = _over_channels(
                np.nanmedian, share[:, :, i]
            )
    return found


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.where(x > 0, x, np.nan))


def _over_channels(function: Any, x: Float[np.ndarray, "n c"]) -> np.ndarray:
    """Applies a function over channels; NaN for windows without any."""
    out = np.full(len(x), np.nan)
    some = np.isfinite(x).any(axis=1)
    out[some] = function(x[some], axis=1)
    return out


def _medians(values: np.ndarray, codes: np.ndarray, num: int) -> np.ndarray:
    """Computes each recording's median over its windows, NaN without any."""
    found = np.full(num, np.nan)
    kept = np.isfinite(values)
    order = np.argsort(codes[kept], kind="stable")
    parts = np.split(values[kept][order], np.cumsum(np.bincount(codes[kept]))[:-1])
    for i, part in enumerate(parts):
        if len(part):
            found[i] = np.median(part)
    return found


def make_norms(
    values: Mapping[str, Float[np.ndarray, " n"]],
    recording: Int[np.ndarray, " n"],
    person: Int[np.ndarray, " r"],
    seconds: Float[np.ndarray, " r"],
    **facts: Any,
) -> Norms:
    """Describes the recordings of a training set.

    Args:
        values: Values of its windows, from `window_values`.
        recording: Recording of each window.
        person: Person of each recording.
        seconds: Length of each recording.
        **facts: `channels`, `units`, `rates` and `passband` of `Norms`.
    """
    num, num_people = len(person), len(np.unique(person))
    usual = float(np.median(seconds))
    weight = 1 / (np.bincount(person)[person] * num_people)
    norms: list[Norm] = []
    score = np.zeros(num)
    for name, x in values.items():
        middle = _medians(x, recording, num)
        known = np.isfinite(middle)
        if not known.any():
            continue
        share = weight[known] / weight[known].sum()
        mean = float(share @ middle[known])
        people = max(2, len(np.unique(person[known])))
        variance = share @ (middle[known] - mean) ** 2 * people / (people - 1)
        away = np.abs(x - middle[recording])
        within = 1.4826 * float(np.median(away[np.isfinite(away)]))
        spread = float(np.hypot(np.sqrt(variance), _LEAST_SPREAD))
        quantiles = np.exp(np.quantile(x[np.isfinite(x)], LEVELS))
        norm = Norm(
            name=name,
            mean=mean,
            spread=spread,
            within=within,
            quantiles=tuple(quantiles.tolist()),
        )
        norms.append(norm)
        own = _allowed(norm, seconds[known], usual)
        score[known] = np.maximum(score[known], np.abs(middle[known] - mean) / own)
    limit = None
    if num_people > 1 and norms:
        error = _ERROR / (2 * len(norms))
        student = float(stats.t.isf(error, num_people - 1))
        rank = max(1, int(_TAIL * (num + 1)))
        largest = float(np.sort(score)[-rank])
        limit = max(student * np.sqrt(1 + 1 / num_people), largest)
    return Norms(
        seconds=usual,
        num_recordings=num,
        num_people=num_people,
        num_windows=len(recording),
        limit=limit,
        values=tuple(norms),
        **facts,
    )


def _allowed(norm: Norm, seconds: Any, usual: float) -> Any:
    """Computes the standard deviation that recordings of some length are allowed."""
    short = np.minimum(1, _STEADY_S / np.maximum(seconds, 1e-9))
    more = np.maximum(0, short - min(1.0, _STEADY_S / max(usual, 1e-9)))
    return np.sqrt(norm.spread**2 + norm.within**2 * more)


def compare(
    norms: Norms,
    values: Mapping[str, Float[np.ndarray, " n"]],
    *,
    seconds: float,
    rate: float,
    units: Sequence[str],
) -> list[Compared]:
    """Compares a recording with those of a training set.

    Args:
        norms: The training set's.
        values: Values of the recording's windows, from `window_values`.
        seconds: Its length.
        rate: Samples per second, as recorded.
        units: Unit of each channel.
    """
    found = []
    if norms.rates:
        low, high = min(norms.rates), max(norms.rates)
        edges = low * (1 - _RATE_TOLERANCE), high * (1 + _RATE_TOLERANCE)
        if edges[0] <= rate <= edges[1]:
            low, high = min(low, rate), max(high, rate)
        found.append(Compared("rate", "Hz", rate, low, high))
    if norms.units:
        names = zip(norms.channels, units, norms.units, strict=True)
        others = [
            f"{name} in {now}, not {was}" for name, now, was in names if now != was
        ]
        text = f"unit of {', '.join(others)}"
        found.append(Compared("unit", "channels", len(others), 0, 0, text=text))
    for norm in norms.values:
        x = values.get(norm.name, np.zeros(0))
        x = x[np.isfinite(x)]
        if not len(x):
            continue
        middle, low, high = float(np.median(x)), None, None
        if norms.limit is not None:
            reach = norms.limit * float(_allowed(norm, seconds, norms.seconds))
            low, high = np.exp(norm.mean - reach), np.exp(norm.mean + reach)
        found.append(_compared(norms, norm, np.exp(middle), low, high))
    return found


def _compared(norms: Norms, norm: Norm, value: float, low: Any, high: Any) -> Compared:
    """Brings a value and its range to the unit that people read."""
    below, name = float(np.interp(value, norm.quantiles, LEVELS)), norm.name
    unit, factor, most = "times the middle one", 1.0, np.inf
    if name == AMPLITUDE:
        unit = norms.units[0] if len(set(norms.units)) == 1 else ""
    elif name.endswith("Hz"):
        unit, factor, most = "% of the power", 100.0, 100.0

    def shown(x: Any) -> float | None:
        return None if x is None else float(min(factor * x, most))

    return Compared(name, unit, float(factor * value), shown(low), shown(high), below)
