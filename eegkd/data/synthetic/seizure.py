"""Nineteen-channel synthetic seizures whose Bayes posterior is known exactly.

A window is a zero-mean stationary Gaussian process: at each frequency its Fourier
coefficients have the covariance

    S_{y,z}(f) = N(f) I + A diag(p_{y,z}(f)) A^T

with background noise N, source topographies A (the columns are smooth bumps on the
scalp) and source spectra p that depend on the class y and on the patient's type z. The
classes are `background`, `focal` (a rhythm with a harmonic at the patient's own site
and rate) and `generalized` (3 Hz over the whole scalp). Every patient also has a benign
rhythm of the same rates at another site, on all the time and without a harmonic. Given
a raw window, p(y | x) is a finite sum over patient types, so it can be computed.

Windows are independent draws laid end to end: a recording looks cut every `window_s`,
and in return the posterior needs no approximation.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float, Float64, Int

from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.synthetic.patients import Patients

CLASSES = ("background", "focal", "generalized")
BACKGROUND = "background"
BAND = (0.5, 40.0)
RATE = 100.0
WINDOW_S = 2.0

# Electrodes on the unit disc, nose up: the usual projection of the 10-20 system.
_ELECTRODES = {
    "Fp1": (-0.31, 0.95), "Fp2": (0.31, 0.95), "F7": (-0.81, 0.59),
    "F3": (-0.42, 0.50), "Fz": (0.0, 0.45), "F4": (0.42, 0.50), "F8": (0.81, 0.59),
    "T7": (-1.0, 0.0), "C3": (-0.5, 0.0), "Cz": (0.0, 0.0), "C4": (0.5, 0.0),
    "T8": (1.0, 0.0), "P7": (-0.81, -0.59), "P3": (-0.42, -0.50), "Pz": (0.0, -0.45),
    "P4": (0.42, -0.50), "P8": (0.81, -0.59), "O1": (-0.31, -0.95),
    "O2": (0.31, -0.95),
}  # fmt: skip
CHANNELS = tuple(_ELECTRODES)
_SITES = ("F7", "T7", "P7", "F8", "T8", "P8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class World(Patients):
    """What patients differ in, and whose labels the student may use.

    Attributes:
        sites: Where a patient's focal rhythm (and benign rhythm) may lie.
        rates_hz: What its frequency may be.
    """

    sites: tuple[str, ...]
    rates_hz: tuple[float, ...]

    @property
    def types(self) -> tuple[tuple[str, float, str, float], ...]:
        """Patient types: focal site and rate, benign site and rate; all as likely."""
        pairs = itertools.product(self.sites, self.rates_hz, self.sites, self.rates_hz)
        apart = tuple(z for z in pairs if z[0] != z[2])
        return apart or tuple(
            (site, rate, "P8", rate) for site in self.sites for rate in self.rates_hz
        )


# In `transfer` the teacher has seen thirty times the patients that the student has
# labels for, and patients differ; in `null` it has seen the same ones and they are all
# alike. This is the second `transfer`: the first had 40 training patients of the 120
# types, of 60 windows each, and its teacher was held back by having seen too few.
WORLDS = {
    "transfer": World(
        name="transfer",
        sites=_SITES,
        rates_hz=(4.5, 6.5),
        num_train=120,
        num_val=10,
        num_test=40,
        num_windows=30,
    ),
    "null": World(name="null", sites=("T7",), rates_hz=(5.5,), num_labelled=40),
}


def _topographies() -> Float64[np.ndarray, "c k"]:
    """Columns: the six sites, a frontal-maximal whole-scalp map, an occipital one."""
    xy = np.array(list(_ELECTRODES.values()))

    def bump(centre: tuple[float, float], width: float) -> np.ndarray:
        return np.exp(-((xy - centre) ** 2).sum(1) / (2 * width**2))

    columns = [bump(_ELECTRODES[site], 0.45) for site in _SITES]
    columns += [bump((0.0, 0.4), 1.0), bump((0.0, -0.9), 0.6)]
    return np.stack(columns, axis=1)


def _frequencies() -> Float64[np.ndarray, " f"]:
    return np.fft.rfftfreq(round(RATE * WINDOW_S), 1 / RATE)


def _peak(freqs: np.ndarray, centre: float, width: float, power: float) -> np.ndarray:
    return power * np.exp(-((freqs - centre) ** 2) / (2 * width**2))


def spectra(
    label: int, patient_type: tuple[str, float, str, float]
) -> tuple[Float64[np.ndarray, " f"], Float64[np.ndarray, "f k"]]:
    """Returns the noise spectrum N(f) and the source spectra p(f), in uV^2 a bin."""
    site, rate, benign_site, benign_rate = patient_type
    freqs = _frequencies()
    noise = 4.0 + 60.0 / (1.0 + (freqs / 2.0) ** 1.5)
    power = np.zeros((len(freqs), len(_SITES) + 2))
    power[:, -1] = _peak(freqs, 10.0, 1.0, 300.0)
    power[:, _SITES.index(benign_site)] += _peak(freqs, benign_rate, 0.7, 60.0)
    if CLASSES[label] == "focal":
        rhythm = _peak(freqs, rate, 0.7, 60.0) + _peak(freqs, 2 * rate, 0.7, 20.0)
        power[:, _SITES.index(site)] += rhythm
    if CLASSES[label] == "generalized":
        power[:, -2] = _peak(freqs, 3.0, 0.7, 24.0) + _peak(freqs, 6.0, 0.7, 6.0)
    return noise, power


def draw_windows(
    rng: np.random.Generator, labels: Int[np.ndarray, " n"], patient_type: tuple
) -> Float[np.ndarray, "n c t"]:
    """Draws one independent window a label, in uV."""
    topographies, t = _topographies(), round(RATE * WINDOW_S)
    num_freqs, (c, k) = len(_frequencies()), topographies.shape

    def gaussian(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)

    out = np.empty((len(labels), c, t), np.float32)
    for i, label in enumerate(labels):
        noise, power = spectra(int(label), patient_type)
        sources = np.sqrt(power) * gaussian(num_freqs, k)
        coefficients = sources @ topographies.T
        coefficients += np.sqrt(noise)[:, None] * gaussian(num_freqs, c)
        coefficients[[0, -1]] = 0  # DC and Nyquist have no phase: leave them empty
        out[i] = np.fft.irfft(coefficients, n=t, axis=0, norm="ortho").T * np.sqrt(2)
    return out


def window_labels(num_windows: int, rng: np.random.Generator) -> np.ndarray:
    """Lays one focal and one generalized seizure of a fifth of the recording each."""
    fifth = num_windows // 5
    labels = np.zeros(num_windows, np.int64)
    first, second = rng.permutation([1, 2])
    starts = rng.integers(1, max(2, fifth - 1), size=2)
    labels[starts[0] : starts[0] + fifth] = first
    begin = num_windows // 2 + starts[1]
    labels[begin : begin + fifth] = second
    return labels


def make_recording(world: World, subject: str, *, seed: int = 0) -> Recording:
    """Draws one patient's recording with its seizures as events.

    Args:
        world: Which patients there are.
        subject: One of `world.subjects`.
        seed: Of the whole corpus; a patient depends on it and on its own name only.
    """
    rng = world.rng(subject, seed)
    types = world.types
    patient_type = types[rng.integers(len(types))]
    labels = window_labels(world.num_windows, rng)
    windows = draw_windows(rng, labels, patient_type)
    events, position = [], 0
    for label, run in itertools.groupby(labels):
        length = len(list(run))
        if label:
            onset, duration = position * WINDOW_S, length * WINDOW_S
            events.append(
                Event(onset_s=onset, duration_s=duration, label=CLASSES[label])
            )
        position += length
    signal = np.ascontiguousarray(np.moveaxis(windows, 0, 1).reshape(19, -1))
    return world.recording(subject, seed, signal, CHANNELS, RATE, events)


def posterior(
    world: World, windows: Float[np.ndarray, "n c t"], prior: Float[np.ndarray, " k"]
) -> Float64[np.ndarray, "n k"]:
    """Computes p(y | x) of raw windows, the patient's type summed over.

    log p(x | y, z) = -sum_f [ x^H S^-1 x + log det S ], with S^-1 by the matrix
    inversion lemma: for B = sqrt(p) A^T A sqrt(p) / N,
    x^H S^-1 x = |x|^2 / N - v^H (I + B)^-1 v / N^2, v = sqrt(p) A^T x.
    """
    t, inner = windows.shape[-1], slice(1, -1)
    x = np.fft.rfft(windows.astype(np.float64), axis=-1, norm="ortho") / np.sqrt(2)
    x = np.moveaxis(x, 1, 2)[:, inner]
    if t != round(RATE * WINDOW_S):
        raise ValueError(f"The posterior is for windows of {WINDOW_S} s; got {t}.")
    topographies = _topographies()
    gram, u = topographies.T @ topographies, x @ topographies
    energy = (np.abs(x) ** 2).sum(-1)
    log_joint = np.empty((len(CLASSES), len(world.types), len(windows)))
    for y, (z, patient_type) in itertools.product(
        range(len(CLASSES)), enumerate(world.types)
    ):
        noise, power = (a[inner] for a in spectra(y, patient_type))
        active = power.max(0) > 0
        root = np.sqrt(power[:, active])
        b = root[:, :, None] * gram[np.ix_(active, active)] * root[:, None, :]
        eye = np.eye(b.shape[-1])
        inside = eye + b / noise[:, None, None]
        v = u[..., active] * root
        solved = np.einsum("nfk,fkl,nfl->nf", v.conj(), np.linalg.inv(inside), v).real
        quadratic = energy / noise - solved / noise**2
        logdet = np.linalg.slogdet(inside)[1] + len(topographies) * np.log(noise)
        log_joint[y, z] = -(quadratic + logdet).sum(1) + np.log(prior[y])
    peak = log_joint.max((0, 1))
    joint = np.exp(log_joint - peak).sum(1).T
    return joint / joint.sum(1, keepdims=True)


def bayes_accuracy(
    world: World, subjects: tuple[str, ...], *, seed: int = 0
) -> tuple[float, float]:
    """Returns the accuracy of the Bayes classifier on some patients, and its error.

    The classifier sees one raw window and the class shares, not the patient.
    """
    hits: list[np.ndarray] = []
    fifth = world.num_windows // 5
    prior = np.array([world.num_windows - 2 * fifth, fifth, fifth]) / world.num_windows
    for subject in subjects:
        recording = make_recording(world, subject, seed=seed)
        windows = recording.signal.reshape(19, world.num_windows, -1).swapaxes(0, 1)
        labels = np.zeros(world.num_windows, np.int64)
        for event in recording.events:
            first = round(event.onset_s / WINDOW_S)
            count = round(event.duration_s / WINDOW_S)
            labels[first : first + count] = CLASSES.index(event.label)
        hits.append(posterior(world, windows, prior).argmax(1) == labels)
    correct = np.concatenate(hits)
    return float(correct.mean()), float(correct.std() / np.sqrt(len(correct)))
