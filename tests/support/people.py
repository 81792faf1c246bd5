"""A store of several persons, each with a mean of its own."""

import numpy as np

from eegkd.data.windows.store import WindowStore


def toy_store(num_subjects=10, per_subject=24, *, label=None, manifest=None, seed=0):
    """Every subject has its own mean; windows of one recording are near each other."""
    rng = np.random.default_rng(seed)
    num = num_subjects * per_subject
    subject = np.repeat([f"{i:02d}" for i in range(num_subjects)], per_subject)
    half = np.tile(np.arange(per_subject) >= per_subject // 2, num_subjects)
    centre = np.repeat(rng.normal(size=(num_subjects, 1, 8)) * 5, per_subject, axis=0)
    index = {
        "recording_id": [f"{s}_{int(h)}" for s, h in zip(subject, half, strict=True)],
        "subject": subject,
        "start_s": np.tile(np.arange(per_subject // 2) * 2.0, 2 * num_subjects),
        "label": half.astype(int) if label is None else label,
        "on_grid": np.tile([True, False], num // 2),
    }
    whole = {
        "corpus": "toy",
        "classes": ["rest", "task"],
        "channels": ["Cz"],
        "rate": 2.0,
        "window_s": 4.0,
    } | (manifest or {})
    signal = centre + rng.normal(size=(num, 1, 8))
    return WindowStore.from_arrays(None, signal, index, whole)
