"""Four-channel synthetic windows whose classes are coded at different depths.

What tells two of the classes apart is held by single tokens, the other two by the
relation of tokens over time. A window of 8 s is eight patches of 1 s, each a draw of a
Gaussian process of its own: at the whole frequencies f the Fourier coefficient of one
electrode has the variance

    N(f) (1 + q(f) [steady electrode] + b(f) [burst at this electrode, in this patch])

with background noise N and two rhythms that the class codes:

* a *steady* one at one electrode, in every patch, at 7, 10.5 or 14 Hz;
* *bursts* at 20 Hz at both electrodes of one hemisphere, together: they come and go in
  a cycle of 2, 4 or 8 patches, half of it on, which begins anywhere.

| class  | steady rhythm | cycle of the bursts |
|--------|---------------|---------------------|
| low    | 7 Hz          | 4 patches           |
| high   | 14 Hz         | 4 patches           |
| slow   | 10.5 Hz       | 8 patches           |
| fast   | 10.5 Hz       | 2 patches           |

So `low` and `high` show in the spectrum of any token of one electrode, which the
embedding of a patch holds already. `slow` and `fast` have the same spectrum in every
token and over every channel: four of a window's eight patches have a burst in either.
What differs is how fast a channel's power rises and falls along the patches, which
takes a comparison over time. No mean power of a channel, at any frequency, tells these
two apart.

Patients differ in the electrode and, by 0.5 Hz, in the frequencies of the steady
rhythm, and in the hemisphere of the bursts. Given a raw window, p(y | x) is a finite
sum over all this, so it can be computed: the two rhythms share no frequency, hence

    p(x | y) = p(x | noise) E[ratio of the steady rhythm | y] E[ratio of bursts | y].

Why this world: two of the classes show in a teacher's early layers and the other two in
later ones alone, and all are coded by frequency and phase, which distances of values
see as one error among many. It was meant to make the layer that is worth mimicking
depend on the window. It does not: a teacher's last layer holds every class, and
students that mimic it, or one learned mixture, are no worse than those of a mixture
that depends on the window (README, "Foundation models").

How far labels reach is a matter of the draw: where the four labelled patients have
bursts on one side alone (seed 1), most students stay below their teacher, and differ by
seed more than rows do. On seed 0 both sides are seen, and most rows come to 1.

Its signal strengths and numbers of patients were set by the accuracies of the Bayes
classifier (1.000), of logistic regression on mean log power (0.77, `slow` and `fast`
by chance) and of a small CBraMod as the teacher, before any student had been trained on
it. In 432 updates that teacher comes to a kappa of 0.98 on validation patients. With
bursts of an eighth of this power it learned `low` and `high` alone (kappa 0.66 to 0.71,
for this code of the classes and for an earlier one, by the lag of two electrodes): what
is no mean power has no gradient at the start, unless bursts stand out from random
filters.

In `layered` the teacher has seen twelve times the patients that the student has labels
for. In `layered_null` patients are alike, and the student is told all that its teacher
was told. It has twice the windows, which was set after students had been seen: on as
many as in `layered`, one student of three stayed at `low` and `high` with labels alone
and none with a teacher's tokens to mimic (balanced accuracy 0.915 and 0.999). That is
help in learning what labels hold as well, where a null world asks for knowledge.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.synthetic.patients import Patients

CLASSES = ("low", "high", "slow", "fast")
BACKGROUND = None
CHANNELS = ("F3", "P3", "F4", "P4")
BAND = (0.5, 75.0)
RATE = 200.0
NUM_PATCHES = 8
WINDOW_S = float(NUM_PATCHES)
STEADY_RATIO, BURST_RATIO = 16.0, 128.0  # power over that of the noise
_PATCH = round(RATE)
_STEADY_HZ = {"low": 7.0, "high": 14.0, "slow": 10.5, "fast": 10.5}
_BURST_HZ = 20.0
_CYCLE = {"low": 4, "high": 4, "slow": 8, "fast": 2}  # patches, half of them on
_SITES = {"left": (0, 1), "right": (2, 3)}
_SCALE = 100.0  # to the size of EEG, about 30 uV


@dataclasses.dataclass(frozen=True, kw_only=True)
class World(Patients):
    """What patients differ in.

    Attributes:
        electrodes: Where a patient's steady rhythm may lie.
        offsets_hz: What its frequencies may be raised by.
        sides: Hemispheres that bursts may lie in.
    """

    electrodes: tuple[str, ...] = CHANNELS
    offsets_hz: tuple[float, ...] = (0.0, 0.5)
    sides: tuple[str, ...] = ("left", "right")
    num_train: int = 48
    num_val: int = 8
    num_test: int = 24
    num_windows: int = 48

    @property
    def types(self) -> tuple[tuple[str, float, str], ...]:
        """Patient types: electrode and offset, hemisphere; all as likely."""
        return tuple(itertools.product(self.electrodes, self.offsets_hz, self.sides))


WORLDS = {
    "layered": World(name="layered"),
    "layered_null": World(
        name="layered_null",
        num_labelled=48,
        num_windows=96,
        electrodes=("F4",),
        offsets_hz=(0.0,),
        sides=("left",),
    ),
}


def _frequencies() -> Float64[np.ndarray, " f"]:
    return np.fft.rfftfreq(_PATCH, 1 / RATE)


def _noise() -> Float64[np.ndarray, " f"]:
    return _SCALE * (4.0 + 60.0 / (1.0 + (_frequencies() / 2.0) ** 1.5))


def _rhythm(centre: float, ratio: float) -> Float64[np.ndarray, " f"]:
    """Returns a rhythm's power over that of the noise: `ratio` at its centre.

    It ends 2.5 Hz away, so that the two rhythms share no frequency.
    """
    away = _frequencies() - centre
    near = np.exp(-(away**2) / (2 * 0.5**2))
    return ratio * np.where(np.abs(away) <= 2.5, near, 0.0)


def bursts_on(start: int, cycle: int) -> Int[np.ndarray, " n"]:
    """Returns 1 for every patch of a window in which a burst lasts, else 0."""
    return ((np.arange(NUM_PATCHES) - start) % cycle < cycle // 2).astype(int)


def draw_window(
    rng: np.random.Generator, label: int, patient_type: tuple[str, float, str]
) -> Float[np.ndarray, "c t"]:
    """Draws one window, in uV."""
    (electrode, offset, side), name = patient_type, CLASSES[label]
    ratio = np.ones((len(CHANNELS), NUM_PATCHES, len(_frequencies())))
    steady = _rhythm(_STEADY_HZ[name] + offset, STEADY_RATIO)
    ratio[CHANNELS.index(electrode)] += steady
    on = bursts_on(int(rng.integers(_CYCLE[name])), _CYCLE[name])
    for site in _SITES[side]:
        ratio[site] += on[:, None] * _rhythm(_BURST_HZ, BURST_RATIO)
    gaussian = rng.normal(size=ratio.shape) + 1j * rng.normal(size=ratio.shape)
    coefficients = np.sqrt(_noise() * ratio) * gaussian
    coefficients[..., [0, -1]] = 0  # DC and Nyquist have no phase: leave them empty
    patches = np.fft.irfft(coefficients, n=_PATCH, axis=-1, norm="ortho")
    return patches.reshape(len(CHANNELS), -1).astype(np.float32)


def make_recording(world: World, subject: str, *, seed: int = 0) -> Recording:
    """Draws one patient's recording: as many windows of each class, in any order.

    Args:
        world: Which patients there are.
        subject: One of `world.subjects`.
        seed: Of the whole corpus; a patient depends on it and on its own name only.
    """
    rng = world.rng(subject, seed)
    patient_type = world.types[rng.integers(len(world.types))]
    labels = rng.permutation(np.arange(world.num_windows) % len(CLASSES))
    windows = [draw_window(rng, label, patient_type) for label in labels]
    events = tuple(
        Event(onset_s=i * WINDOW_S, duration_s=WINDOW_S, label=CLASSES[label])
        for i, label in enumerate(labels)
    )
    signal = np.concatenate(windows, axis=1)
    return world.recording(subject, seed, signal, CHANNELS, RATE, events)


def posterior(
    world: World, windows: Float[np.ndarray, "n c t"]
) -> Float64[np.ndarray, "n k"]:
    """Computes p(y | x) of raw windows, patients and beginnings of bursts summed over.

    A coefficient x of variance N (1 + r), and not N, has the likelihood ratio
    `exp(|x|^2 / N * r / (1 + r)) / (1 + r)`.
    """
    n, c, t = windows.shape
    if (c, t) != (len(CHANNELS), NUM_PATCHES * _PATCH):
        raise ValueError(
            f"The posterior is for windows of {len(CHANNELS)} x {NUM_PATCHES * _PATCH}"
            f" samples; got {c} x {t}."
        )
    patches = windows.astype(np.float64).reshape(n, c, NUM_PATCHES, _PATCH)
    power = np.abs(np.fft.rfft(patches, axis=-1, norm="ortho")) ** 2 / 2 / _noise()

    def log_ratio(channel: int, centre: float, ratio: float) -> np.ndarray:
        """Compares a rhythm in a patch of a channel with none, [n, patch]."""
        r = _rhythm(centre, ratio)
        return power[:, channel] @ (r / (1 + r)) - np.log1p(r).sum()

    bursts = [log_ratio(i, _BURST_HZ, BURST_RATIO) for i in range(c)]
    log_joint = np.empty((n, len(CLASSES)))
    for label, name in enumerate(CLASSES):
        steady = [
            log_ratio(CHANNELS.index(site), _STEADY_HZ[name] + offset, STEADY_RATIO)
            for site, offset in itertools.product(world.electrodes, world.offsets_hz)
        ]
        ways = [
            (bursts[front] + bursts[back]) @ bursts_on(start, _CYCLE[name])
            for front, back in (_SITES[side] for side in world.sides)
            for start in range(_CYCLE[name])
        ]
        log_joint[:, label] = _log_mean([s.sum(1) for s in steady]) + _log_mean(ways)
    joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
    return joint / joint.sum(1, keepdims=True)


def _log_mean(logs: Any) -> Float64[np.ndarray, " n"]:
    return np.logaddexp.reduce(logs) - np.log(len(logs))


def bayes_accuracy(
    world: World, subjects: tuple[str, ...], *, seed: int = 0
) -> tuple[float, float]:
    """Returns the accuracy of the Bayes classifier on some patients, and its error.

    The classifier sees one raw window and the class shares, not the patient.
    """
    hits = []
    for subject in subjects:
        recording = make_recording(world, subject, seed=seed)
        shape = (len(CHANNELS), world.num_windows, -1)
        windows = recording.signal.reshape(shape).swapaxes(0, 1)
        labels = np.array([CLASSES.index(event.label) for event in recording.events])
        hits.append(posterior(world, windows).argmax(1) == labels)
    correct = np.concatenate(hits)
    return float(correct.mean()), float(correct.std() / np.sqrt(len(correct)))
