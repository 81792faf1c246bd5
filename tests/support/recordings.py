"""A folder of short EDF recordings with a seizure in each, and its labels.csv."""

import csv

import numpy as np

from tests.support.edf import write_edf

NAMES = ("Fp1", "C3", "Cz", "C4", "O2")
RATE = 100
SEIZURE = (20.0, 40.0)


def noise(seed=0, seconds=60, rate=RATE, num_channels=5):
    """Broadband noise of 30 uV, louder inside the seizure."""
    rng = np.random.default_rng(seed)
    signal = 30 * rng.normal(size=(num_channels, seconds * rate))
    signal[:, round(SEIZURE[0] * rate) : round(SEIZURE[1] * rate)] *= 3
    return signal


def write_folder(folder, *, num_subjects=4, label="seizure"):
    """EDF files of a few persons with a labels.csv: `label` in the middle."""
    folder.mkdir(parents=True)
    rows = [("file", "subject", "onset", "duration", "label")]
    for i in range(num_subjects):
        write_edf(folder / f"p{i}.edf", noise(i), NAMES, rate=RATE)
        span = (SEIZURE[0], SEIZURE[1] - SEIZURE[0])
        rows.append((f"p{i}.edf", f"{i}", *map(str, span), label))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
