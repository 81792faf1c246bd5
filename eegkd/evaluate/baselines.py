"""The floor under every result: band power and a linear classifier."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Shaped
from scipy import signal as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eegkd.errors import InputError

BANDS = ((0.5, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 80.0))
"""Delta, theta, alpha, beta and gamma, in Hz."""

ProbFn = Callable[[Float[np.ndarray, "n f"]], Float32[np.ndarray, "n k"]]


def band_power(
    signal: Float[np.ndarray, "n c t"],
    rate: float,
    *,
    relative: bool = True,
    passband: tuple[float, float] | None = None,
    bands: Sequence[tuple[float, float]] = BANDS,
    segment_s: float = 2.0,
) -> Float32[np.ndarray, "n f"]:
    """Computes the log power of every channel in every band, by Welch's method.

    Args:
        signal: Windows.
        rate: Samples per second.
        relative: Divide by the power of all bands together, which removes gain.
        passband: Band of the filter that the data went through, in Hz; an edge of 0 is
            none, as in `--data.band`. Band edges are clipped to it and to half the
            rate, and a band left without a frequency is dropped. Where none is left it
            is the only one.
        bands: Edges in Hz.
        segment_s: Length of Welch's segments, in seconds; at most the window.

    Returns:
        Features, channel-major: `f = channels * bands kept`.

    Raises:
        ValueError: If no frequency is left.
    """
    n, _, t = signal.shape
    segment, kept = _kept_bands(t, rate, passband, bands, segment_s)
    weights = np.stack([m / m.sum() for _, m in kept] or [np.zeros(1)], axis=1)
    if not weights.any():
        raise ValueError(
            f"No band has a frequency: rate {rate}, {t} samples, {passband}."
        )
    _, density = sp.welch(signal, rate, nperseg=segment)
    power = density @ weights.astype(density.dtype)  # [n, c, bands]
    if relative:
        power = power / np.maximum(power.sum(axis=-1, keepdims=True), 1e-12)
    return np.log(np.maximum(power, 1e-6)).reshape(n, -1).astype(np.float32)


def bands_within(
    num: int,
    rate: float,
    passband: tuple[float, float] | None = None,
    bands: Sequence[tuple[float, float]] = BANDS,
    segment_s: float = 2.0,
) -> tuple[tuple[float, float], ...]:
    """Returns the bands that `band_power` keeps of windows of `num` samples."""
    _, kept = _kept_bands(num, rate, passband, bands, segment_s)
    return tuple(band for band, _ in kept)


def _kept_bands(
    num: int,
    rate: float,
    passband: tuple[float, float] | None,
    bands: Sequence[tuple[float, float]],
    segment_s: float,
) -> tuple[int, list[tuple[tuple[float, float], np.ndarray]]]:
    """Returns the length of Welch's segments, and bands with their frequencies."""
    segment = min(num, max(2, round(segment_s * rate)))
    low, high = passband or (0.0, 0.0)
    high = min(high or rate / 2, rate / 2)
    freqs = np.fft.rfftfreq(segment, 1 / rate)
    inside = (freqs >= low) & (freqs <= high)
    masks = [(band, inside & (freqs >= band[0]) & (freqs < band[1])) for band in bands]
    kept = [(band, mask) for band, mask in masks if mask.any()]
    if not kept and inside.any():  # A pass band beside all of them is one by itself.
        kept = [((low, high), inside)]
    return segment, kept


def linear_baseline(
    train_x: Float[np.ndarray, "n f"],
    train_y: Shaped[np.ndarray, "..."],
    val_x: Float[np.ndarray, "m f"],
    val_y: Shaped[np.ndarray, "..."],
    *,
    num_classes: int,
    seed: int = 0,
    strengths: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> ProbFn:
    """Fits standardised logistic regression, classes weighted equally.

    The inverse regularisation C is the one with the lowest log-loss on the validation
    subjects, the stronger one on a tie. Unlabelled rows (-1) are left out. A class that
    training lacks has probability 0.

    Where a window has several labels, [n, k], each is a classifier of its own, fitted
    on the windows where it is known; one that is the same in all of them, or known in
    none, is predicted at its share.

    Returns:
        A function from features to probabilities `[n, num_classes]`.

    Raises:
        InputError: If training holds a single class.
    """
    if train_y.ndim > 1:
        options = {"seed": seed, "strengths": strengths}
        return _one_by_one(train_x, train_y, val_x, val_y, **options)
    train_x, train_y = train_x[train_y >= 0], train_y[train_y >= 0]
    classes = np.unique(train_y)
    if len(classes) < 2:
        raise InputError(
            f"The training subjects hold the single class {classes.tolist()}; a "
            "classifier needs two: use other folds or more subjects."
        )
    scored = np.isin(val_y, classes)
    fitted = []
    for strength in sorted(strengths):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(
                C=strength,
                class_weight="balanced",
                max_iter=300,
                tol=1e-3,
                random_state=seed,
            ),
        )
        with warnings.catch_warnings():
            # Weakly regularised fits on separable data stop early, which is harmless.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_x, train_y)
        loss = 0.0
        if scored.any():
            prob = model.predict_proba(val_x[scored])
            loss = log_loss(val_y[scored], prob, labels=classes)
        fitted.append((loss, model))
    best = min(fitted, key=lambda pair: pair[0])[1]

    def prob_fn(x: Float[np.ndarray, "n f"]) -> Float32[np.ndarray, "n k"]:
        prob = np.zeros((len(x), num_classes), np.float32)
        prob[:, classes] = best.predict_proba(x)
        return prob

    return prob_fn


def _one_by_one(
    train_x: Float[np.ndarray, "n f"],
    train_y: Shaped[np.ndarray, "n k"],
    val_x: Float[np.ndarray, "m f"],
    val_y: Shaped[np.ndarray, "m k"],
    **options: Any,
) -> ProbFn:
    """Fits one classifier of two classes for each label."""
    fitted: list[ProbFn] = []
    for gold, held in zip(train_y.T.astype(int), val_y.T.astype(int), strict=True):
        known = gold[gold >= 0]
        if len(np.unique(known)) < 2:
            share = np.float32(known.mean() if len(known) else 0.5)
            fitted.append(lambda x, share=share: np.full((len(x), 2), share))
            continue
        own = linear_baseline(train_x, gold, val_x, held, num_classes=2, **options)
        fitted.append(own)
    return lambda x: np.stack([fn(x)[:, 1] for fn in fitted], axis=1)
