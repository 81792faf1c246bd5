"""From a recording as read to signals as models want them: filter, resample, scale."""

import dataclasses
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from eegkd.data.config import DataConfig
from eegkd.data.recordings.filtering import filter_and_resample, num_resampled
from eegkd.data.recordings.flaws import find_flaws
from eegkd.data.recordings.layouts import name_by_layout
from eegkd.data.recordings.montage import (
    DOUBLE_BANANA,
    default_channels,
    pick_channels,
    recorded_channels,
    scalp_electrodes,
    subtract_average,
)
from eegkd.data.recordings.recording import Origin, Recording
from eegkd.errors import InputError

_MAX_EDGE = 0.45
_MAX_NOTCH = 0.48
_MAX_DRIFT = 0.01


class Reference(NamedTuple):
    """The average that a model's training recordings were referenced to.

    Attributes:
        electrodes: Electrodes that were averaged in some recording.
        always: Electrodes that were averaged in every recording.
    """

    electrodes: tuple[str, ...]
    always: tuple[str, ...]


def preprocess(
    recording: Recording, config: DataConfig, reference: Reference | None = None
) -> Recording:
    """Picks, re-references, filters, resamples and (per recording) z-scores.

    An option that is None or () is left out, except `channels`: () takes all EEG
    channels (the 18 pairs for `double_banana`; the ECG leads of a file without EEG).
    Of the scopes of `zscore` only `recording` happens here.

    Args:
        recording: Recording as read.
        config: Options.
        reference: Electrodes to average where the montage is `average`; None is all
            scalp electrodes that hold a signal.

    Returns:
        The recording; its `filled` names the channels that `config.policy` had to
        interpolate or to set to zero, its `reference` the averaged electrodes. Its
        `bad_spans` and `resampled` are those of the channels that it was computed from;
        the first hold the flat and clipped stretches of these, too.

    Raises:
        InputError: If a channel is missing, flat or not finite, or an option does not
            fit the recording.
    """
    check_options(config, recording.rate, recording.source)
    recording = name_by_layout(recording, config.layout)
    wanted = config.channels
    if not wanted and config.montage == "double_banana":
        wanted = DOUBLE_BANANA
    wanted = wanted or default_channels(recording)
    picked, present = pick_channels(recording, wanted, config.policy)
    check_finite(picked)
    if config.montage == "average":
        averaged = _averaged(recording, config, reference)
        picked = subtract_average(picked, recording, averaged, present)
    rate = config.rate or picked.rate
    num = picked.signal.shape[1]
    ratio = resampling_ratio(picked.rate, rate, num)
    out = np.zeros((len(wanted), num_resampled(num, ratio)), np.float32)
    # Channel by channel: float64 copies of hours of all channels would not fit.
    for i in np.flatnonzero(present):
        out[i] = filter_and_resample(
            picked.signal[i],
            picked.rate,
            ratio,
            band=config.band,
            order=config.filter_order,
            notches=_line_frequencies(config, picked.rate),
        )
    used = recorded_channels(recording, picked, config.policy)
    marked = (
        span
        for span in recording.bad_spans
        if not span.channels or used.intersection(span.channels)
    )
    result = dataclasses.replace(
        picked,
        signal=out,
        rate=rate,
        origin=Origin(rate=picked.rate, units=picked.units),
        bad_spans=(*marked, *find_flaws(recording, used)),
        resampled=tuple(name for name in recording.resampled if name in used),
    )
    if config.zscore == "recording":
        result = zscore_recording(result, present)
    return result


def _averaged(
    recording: Recording, config: DataConfig, reference: Reference | None
) -> tuple[str, ...]:
    """Returns the electrodes to average; those of a given reference must be there.

    Under a policy that fills channels in, the average is over those that are.
    """
    usable = scalp_electrodes(recording)
    if reference is None:
        return usable
    lost = [name for name in reference.always if name not in usable]
    if lost and config.policy == "error":
        raise InputError(
            f"{recording.source}: missing channels {', '.join(lost)}: the model's "
            f"windows are referenced to the average of {len(reference.always)} "
            "electrodes, and these are not recorded, or flat. Record them, or let "
            "--data.policy interpolate or mask average the others."
        )
    return tuple(name for name in usable if name in reference.electrodes)


def check_options(config: DataConfig, rate: float, source: str) -> None:
    """Refuses filter edges and rates that do not fit a recording.

    Raises:
        InputError: Naming the switch.
    """
    if config.rate is not None and not 0 < config.rate < math.inf:
        raise InputError(f"--data.rate must be above 0, got {config.rate:g}.")
    if config.band is not None:
        low, high = config.band
        if low < 0 or not (high == 0 or low < high):
            raise InputError(
                f"--data.band {low:g} {high:g}: the lower edge must be at least 0 and "
                "below the upper one; an edge of 0 is none."
            )
        _check_edge(source, "--data.band", high, rate)
        if config.rate is not None and high >= config.rate / 2:
            raise InputError(
                f"--data.band {low:g} {high:g}: its upper edge does not fit below half "
                f"of --data.rate {config.rate:g}; lower the edge or raise the rate."
            )
    if config.filter_order < 1:
        raise InputError(
            f"--data.filter_order must be at least 1, got {config.filter_order}."
        )
    if config.notch is not None and config.notch < 0:
        raise InputError(f"--data.notch must be 0 or above, got {config.notch:g}.")
    if config.notch:
        # A notch is narrow: 60 Hz leaves room below half of 128 samples per second.
        _check_edge(source, "--data.notch", config.notch, rate, _MAX_NOTCH)


def _check_edge(
    source: str, switch: str, edge: float, rate: float, most: float = _MAX_EDGE
) -> None:
    if edge >= most * rate:
        raise InputError(
            f"{source}: {switch} {edge:g} Hz is too high for a recording of {rate:g} "
            f"samples a second; set {switch} below {most * rate:g} Hz."
        )


def check_finite(recording: Recording) -> None:
    """Refuses NaN and infinity.

    Raises:
        InputError: Naming the file, the channel and the sample.
    """
    finite = np.isfinite(recording.signal)
    if not finite.all():
        row, sample = np.argwhere(~finite)[0]
        raise InputError(
            f"{recording.source}: channel {recording.channels[row]} holds NaN or "
            f"infinite samples, the first at {sample / recording.rate:g} s. Cut or "
            "interpolate them, or leave the channel out with --data.channels."
        )


def _line_frequencies(config: DataConfig, rate: float) -> tuple[float, ...]:
    """Returns the line frequency, and its harmonics inside the band."""
    if not config.notch:
        return ()
    top = (config.band and config.band[1]) or _MAX_EDGE * rate
    count = max(1, math.ceil(top / config.notch) - 1)
    return tuple(config.notch * k for k in range(1, count + 1))


def resampling_ratio(old: float, new: float, num: int) -> Fraction:
    """Returns `new / old` as a fraction, as simple as the recording's length allows.

    Over `num` samples it strays from the exact one by a hundredth of a sample at most:
    20000/17361 (200 Hz of 173.61 Hz) would need long ends for a signal of 24 s.
    """
    exact = Fraction(repr(float(new))) / Fraction(repr(float(old)))
    limit = 100
    while abs(float(exact.limit_denominator(limit) - exact)) * num > _MAX_DRIFT:
        limit *= 2
    return exact.limit_denominator(limit)


def zscore_recording(
    recording: Recording, present: Bool[np.ndarray, " c"] | None = None
) -> Recording:
    """Returns the recording with every present channel at mean 0 and deviation 1.

    Raises:
        InputError: If filtering left nothing of a channel.
    """
    if present is None:
        present = np.ones(len(recording.channels), bool)
    x = recording.signal.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    std = x.std(axis=1, keepdims=True)
    empty = np.flatnonzero(present & (std[:, 0] < 1e-6))
    if len(empty):
        raise InputError(
            f"{recording.source}: channel {recording.channels[empty[0]]} is flat after "
            "filtering. Widen --data.band or leave the channel out (--data.channels)."
        )
    scale = np.where(present[:, None], std, 1.0)
    x /= scale
    origin = recording.origin or Origin(rate=recording.rate, units=recording.units)
    return dataclasses.replace(
        recording,
        signal=x.astype(np.float32),
        units=("zscore",) * len(x),
        origin=dataclasses.replace(origin, scale=tuple(scale[:, 0].tolist())),
    )
