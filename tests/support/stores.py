"""Small window stores in memory: of noise, and with a class to be learned."""

import numpy as np

from eegkd.data.windows.store import WindowStore


def toy_store(path=None, num=200, seed=0):
    rng = np.random.default_rng(seed)
    index = {
        "recording_id": np.repeat([f"r{i}" for i in range(10)], num // 10),
        "subject": np.repeat([f"s{i}" for i in range(5)], num // 5),
        "start_s": np.tile(np.arange(num // 10) * 1.0, 10),
        "label": rng.choice([-1, 0, 1, 2], p=[0.2, 0.5, 0.2, 0.1], size=num),
    }
    manifest = {
        "corpus": "toy",
        "classes": ["a", "b", "c"],
        "channels": ["C3", "C4"],
        "rate": 8.0,
        "window_s": 2.0,
    }
    signal = rng.normal(3.0, 2.0, size=(num, 2, 16)).astype(np.float32)
    return WindowStore.from_arrays(path, signal, index, manifest)


def tiny_store(
    num_subjects=6, per_subject=24, *, rate=64.0, t=64, gain=1.0, **manifest
):
    """Class 1 has more power at 10 Hz in the first channel."""
    rng = np.random.default_rng(0)
    num = num_subjects * per_subject
    label = np.tile(np.arange(per_subject) // 6 % 2, num_subjects)
    signal = rng.normal(size=(num, 3, t))
    wave = np.sin(2 * np.pi * 10 * np.arange(t) / rate)
    signal[:, 0] += gain * label[:, None] * wave
    subject = np.repeat([f"{i:02d}" for i in range(num_subjects)], per_subject)
    index = {
        "recording_id": subject,
        "subject": subject,
        "start_s": np.tile(np.arange(per_subject) * t / rate, num_subjects),
        "label": label,
    }
    whole = {
        "corpus": "tiny",
        "classes": ["background", "seizure"],
        "background": "background",
        "channels": ["C3", "Cz", "C4"],
        "units": ["zscore"] * 3,
        "rate": rate,
        "window_s": t / rate,
        "recordings": {
            name: {
                "subject": name,
                "session": "",
                "duration_s": per_subject * t / rate,
                "events": [
                    {
                        "onset_s": start * t / rate,
                        "duration_s": 6 * t / rate,
                        "label": "seizure",
                        "channels": [],
                    }
                    for start in range(6, per_subject, 12)
                ],
            }
            for name in np.unique(subject).tolist()
        },
    } | manifest
    return WindowStore.from_arrays(None, signal, index, whole)
