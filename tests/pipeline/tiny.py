"""A run small enough to test with: six people, three channels, a one-block student.

As a program, `python -m tests.pipeline.tiny OUT` runs it, to be killed and resumed.
"""

import dataclasses
import sys

import numpy as np

from eegkd.data.folds import make_folds
from eegkd.data.store import WindowStore
from eegkd.models import ConformerConfig
from eegkd.pipeline.config import TrainConfig
from eegkd.pipeline.registry import DistilClipRun
from eegkd.systems.distilclip_config import ProjConfig, StudentConfig, TextConfig
from eegkd.train.optimiser import OptimConfig


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


def tiny_config(out, **changes):
    config = DistilClipRun(
        out=str(out),
        eeg=ConformerConfig(
            dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
        ),
        text=TextConfig(dim=16, depth=1, num_heads=2),
        proj=ProjConfig(dim=8),
        student=StudentConfig(depth=1),
        num_folds=2,
        num_seeds=1,
        rows=("alpha_0", "no_teacher", "shuffled_teacher", "linear"),
        train=TrainConfig(epochs=3, batch_size=16, save_every_s=0.2),
        optim=OptimConfig(learning_rate=1e-3),
    )
    return dataclasses.replace(config, **changes)


def run(out, store=None, **changes):
    from eegkd.pipeline.run import run_distillation
    from eegkd.systems.distilclip_eeg import make_system

    store = tiny_store() if store is None else store
    config = tiny_config(out, **changes)
    folds = make_folds(store, config.split, num_folds=config.num_folds)
    return run_distillation(make_system, store, folds, config)


if __name__ == "__main__":
    slow = TrainConfig(epochs=60, batch_size=16, save_every_s=0.2)
    run(sys.argv[1], rows=(), train=slow)
