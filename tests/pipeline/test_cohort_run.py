"""Patients against controls, from files to a verdict: each person has one class."""

import numpy as np
import pytest

from eegkd.data.config import DataConfig
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.prepare import prepare
from eegkd.evaluate.assays.verdict import rows_of, summary_of
from eegkd.evaluate.evidence import Evidence
from eegkd.evaluate.report.terminal import caveats, terminal_table
from eegkd.evaluate.rows import A_A
from eegkd.pipeline.baselines import linear
from eegkd.pipeline.folds import fold_data, predictions_of
from tests.support.edf import write_edf

EARS = ("Fp1", "F3", "C3", "P3", "O1", "F7", "T3", "T5", "Fz", "Fp2", "F4", "C4")
EARS = (*EARS, "P4", "O2", "F8", "T4", "T6", "Cz", "Pz")
RATE = 256


def write_people(root, num=13, seconds=12):
    """Writes files named as Mumtaz 2016's; the depressed have more at 10 Hz."""
    root.mkdir()
    rng = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * 10 * np.arange(RATE * seconds) / RATE)
    for group, power in (("H", 8.0), ("MDD", 16.0)):
        for person in range(1, num + 1):
            loud = power + rng.normal(0, 2)
            signal = rng.normal(0, 20, (len(EARS), len(wave))) + loud * wave
            labels = [f"EEG {name}-LE" for name in EARS]
            path = root / f"{group} S{person} EC.edf"
            write_edf(path, signal, labels, rate=RATE)


@pytest.mark.slow
def test_patients_against_controls_get_a_verdict_by_cohort(tmp_path):
    """At 83fed93 every row was `nan: undetectable`."""
    write_people(tmp_path / "files")
    config = DataConfig(
        corpus="mumtaz2016", root=str(tmp_path / "files"), workers=1, zscore="none"
    )
    store = prepare(config, tmp_path / "store")
    folds = make_folds(store, "kfold", num_folds=2)
    rng, test, val = np.random.default_rng(0), {}, {}

    def add(row, seed, pair):
        for where, predictions in zip((val, test), pair, strict=True):
            where.setdefault(row, {}).setdefault(seed, []).append(predictions)

    for fold in folds:
        data = fold_data(store, fold)
        for seed in range(2):
            add("student", seed, linear(data, seed))
            for row in ("no_teacher", "alpha_0", A_A):
                chance = [
                    predictions_of(data, rows, rng.dirichlet([9, 9], len(rows)))
                    for rows in (fold.val, fold.test)
                ]
                add(row, seed, chance)
    evidence = Evidence(test=test, val=val, store=store, fold=folds[0])
    rows, summary = rows_of(evidence, "auroc"), evidence.once(summary_of)
    assert evidence.task.metrics[0] == "auroc"
    assert {row["unit"] for row in rows.values()} == {"cohort"}
    assert {row["n_subjects"] for row in rows.values()} == {26}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts.pop(A_A) == "undetectable"
    assert set(verdicts.values()) == {"better"}
    said = " ".join(caveats(evidence))
    assert "Unit: the cohort of 26 test subjects" in said
    assert "so distillation helps" in said
    assert terminal_table(summary.rows, {}, evidence.task.metrics).row_count == 4
