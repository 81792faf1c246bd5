"""Windows of several labels, as a user has them: prepare, distill, judge, use."""

import html
import json

import numpy as np
import pytest

from eegkd.cli import main
from eegkd.config import ROWS
from eegkd.evaluate.multilabel import macro_auroc
from eegkd.evaluate.predictions import concatenate, load_predictions
from eegkd.pipeline.folder import read_log

CLASSES = ("slow", "alpha", "fast")
SMALL = {
    **{"num_folds": 2, "num_seeds": 2, "kd.alpha": 0.3},
    **{"teacher.head": "average", "teacher.cbramod.filters": 5},
    **{"teacher.cbramod.depth": 1, "teacher.cbramod.num_heads": 2},
    **{"teacher.cbramod.ffn_dim": 8, "student.mimic_hidden": 4},
    **{"student.compress_width": 8, "student.norm_groups": 2},
    **{"train.epochs": 2, "train.batch_size": 8},
}


def write_windows(root):
    """Twelve people, six windows of 2 s each; a rhythm per label; some not asked."""
    rng = np.random.default_rng(0)
    label = (rng.random((72, 3)) < 0.4).astype(int)
    label[:2] = 0
    signal = 10 * rng.normal(size=(72, 2, 400))
    time = np.arange(400) / 200
    for k, rate in enumerate((6, 12, 25)):
        wave = 15 * np.sin(2 * np.pi * rate * time)
        signal[:, k % 2] += label[:, k, None] * wave
    label[3, 1], label[8], label[20:24, 2] = -1, -1, -1
    root.mkdir()
    people = np.repeat([f"p{i:02d}" for i in range(12)], 6)
    signal = signal.astype(np.float32)
    np.savez(root / "all.npz", signal=signal, label=label, subject=people)
    about = {"channels": ["C3", "C4"], "rate": 200, "unit": "uV", "classes": CLASSES}
    (root / "windows.json").write_text(json.dumps(about))
    return label


@pytest.mark.slow
def test_several_labels_go_all_the_way(tmp_path, capsys):
    label = write_windows(tmp_path / "mine")
    store, run = str(tmp_path / "store"), tmp_path / "run"
    source = ["--data.corpus", "arrays", "--data.root", str(tmp_path / "mine")]
    assert main(["prepare", *source, "--data.zscore", "none", "--out", store]) == 0
    options = [
        text for pair in SMALL.items() for text in (f"--{pair[0]}", str(pair[1]))
    ]
    where = ["--preset", "small", "--store", store, "--out", str(run)]
    assert main(["distill", "dlink", *where, *options]) == 0
    check_results(run, label)
    check_report(run)
    assert "within_class_shuffle moves" in capsys.readouterr().out + page_of(run)
    before = (run / "results.json").read_text()
    assert main(["evaluate", str(run)]) == 0
    assert (run / "results.json").read_text() == before
    check_prediction(tmp_path, run, source, capsys)
    check_export(tmp_path, run)


def page_of(run):
    return html.unescape((run / "report.html").read_text())


def check_results(run, label):
    rows = json.loads((run / "results.json").read_text())
    models = {row["model"] for row in rows}
    assert {"teacher", "student", *ROWS} <= models
    found = {(row["model"], row["metric"]): row for row in rows}
    for model in models:
        for metric in ("macro_auroc", "macro_ap", "negative_bce", "negative_hamming"):
            assert (model, metric) in found
    pooled = []
    for seed in range(2):
        files = (f"fold{i}/student/seed{seed}/test.npz" for i in range(2))
        whole = concatenate([load_predictions(run / file) for file in files])
        np.testing.assert_array_equal(whole.label, label[whole.window_id])
        pooled.append(macro_auroc(whole))
    got = found["student", "macro_auroc"]["pooled"]
    assert got == pytest.approx(np.mean(pooled))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["labels"]["positives"]["windows"] == (label == 1).sum(0).tolist()
    assert summary["labels"]["positives"]["asked"] == (label >= 0).sum(0).tolist()
    assert summary["labels"]["rows"]["linear"]["classes_used"] == 3
    assert set(summary["calibration"]) == {"teacher", "student", "no_teacher"}
    assert len(summary["agreement"]["student"]["by_class"]) == 3
    assert summary["events"] == {}
    measured = summary["measured"]["student"]["rank_tokens"]["by_class"]
    assert all(value > 0 for value in measured)
    judged = [
        row for row in read_log(run / "metrics.jsonl") if "val/macro_auroc" in row
    ]
    assert {"student", "small_net", "teacher"} <= {row["model"] for row in judged}
    assert all("val/negative_bce" in row for row in judged)


def check_report(run):
    page = page_of(run)
    for title in ("Each class", "Decisions", "Confusion", "Reliability", "Training"):
        assert f"<h2>{title}</h2>" in page
    assert "Agreement with the teacher" in page
    assert "macro AUROC" in page
    assert all(name in page for name in CLASSES)
    assert "are no events in time" in page


def check_prediction(folder, run, source, capsys):
    mine, out = str(folder / "mine"), str(folder / "found")
    capsys.readouterr()
    asked = [mine, "--model", str(run), "--data.corpus", "arrays", "--out", out]
    assert main(["predict", *asked]) == 0
    assert "may have several classes" in capsys.readouterr().out
    files = sorted((folder / "found").glob("*_windows.tsv"))
    assert len(files) == 12
    lines = [line.split("\t") for line in files[0].read_text().splitlines()]
    assert lines[0] == ["onset", "duration", *CLASSES]
    cells = np.array(lines[1:], float)
    assert cells.shape == (6, 5)
    # Each class has a probability of its own.
    assert not np.allclose(cells[:, 2:].sum(axis=1), 1, atol=1e-3)


def check_export(folder, run):
    out = folder / "export"
    asked = [str(run), "--out", str(out), "--format", "stablehlo", "--runs", "0"]
    assert main(["export", *asked]) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["files"][0]["parity"][-1] == 1  # Share of equal decisions.
    assert len(card["thresholds"]) == 3
    assert "may have several classes" in (out / "README.md").read_text()
