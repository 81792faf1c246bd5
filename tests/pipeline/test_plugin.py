"""A system and a corpus of another distribution, through every command.

`tests/support/plugin` is built and installed as a stranger's package would be; it uses
what a stage may be and no built-in system is.
"""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.processes import ROOT, running

pytestmark = pytest.mark.slow

OPTIONS = ("--data.root", "corpus", "--weights", "lens.safetensors")
SHOW_PEAK = """
import sys
from eegkd.cli import main
from eegkd.host.process import peak_resident
main(sys.argv[1:])
print(peak_resident(), file=sys.stderr)
"""


def install(site, scratch):
    """Installs the distribution, and nothing else, into a folder."""
    # pip builds where the sources lie.
    shutil.copytree(ROOT / "tests" / "support" / "plugin", scratch)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    try:
        setuptools = int(importlib.metadata.version("setuptools").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        setuptools = 0
    if setuptools >= 77:  # Or pip fetches one.
        command.append("--no-build-isolation")
    subprocess.run([*command, "--target", str(site), str(scratch)], check=True)


def write_corpus(folder):
    """Writes seven people; the task is louder than rest, by a little."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate("abcdefg"):
        loudness = np.repeat(np.tile([3.0, 3.6], 3 + i % 2), 150)
        noise = rng.normal(scale=1 + 0.2 * rng.random(), size=(2, len(loudness)))
        np.save(folder / f"{name}.npy", (loudness * noise).astype(np.float32))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the distribution, the corpus and the weights."""
    folder = tmp_path_factory.mktemp("plugin")
    install(folder / "site", folder / "sources")
    write_corpus(folder / "corpus")
    rng = np.random.default_rng(1)
    shapes = {"in": (2, 6), "middle": (6, 6), "out": (6, 2)}
    weights = {k: rng.normal(size=x).astype(np.float32) for k, x in shapes.items()}
    save_file(weights, folder / "lens.safetensors")
    return folder


def surroundings(place):
    path = os.pathsep.join([str(place / "site"), str(ROOT)])
    return {"cwd": place, "env": os.environ | {"PYTHONPATH": path}, "text": True}


def eegkd(place, *args, code=0, program=("-m", "eegkd.cli")):
    """Runs a command; returns what it wrote."""
    command = [sys.executable, *program, *args]
    done = subprocess.run(command, capture_output=True, **surroundings(place))
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing disturbs."""
    eegkd(place, "distill", "cascade", *OPTIONS, "--out", "whole")
    return place / "whole"


@pytest.fixture(scope="module")
def resumed(place, whole):
    """The same run from its config.json, with two workers, killed and resumed."""
    command = ("distill", "--config", str(whole / "config.json"), "--out", "resumed")
    command = [sys.executable, "-m", "eegkd.cli", *command, "--train.workers", "2"]
    run = place / "resumed"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    others = {"start_new_session": True, **silent, **surroundings(place)}
    with running(command, **others) as process:
        deadline = time.monotonic() + 300
        while not (run / "fold0" / "tower" / "done.json").is_file():
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)  # With its workers.
    assert not (run / "fold0" / "student" / "seed0" / "done.json").is_file()
    eegkd(place, "distill", "--resume", "resumed")
    return run


def test_a_plan_counts_four_gigabytes_and_reads_none(place):
    args = ("plan", "cascade", "--preset", "small", "--weights", "not-there", "--json")
    done = eegkd(place, *args, "--width", "32768", program=("-c", SHOW_PEAK))
    stages = json.loads(done.stdout)["stages"]
    online = stages["tower"]["memory"]["earlier_stages_online"]
    assert online == 4 * stages["lens"]["parameters"] > 2**32
    assert "memory" not in stages["lens"]
    assert stages["tower"]["flops_window"] is None
    assert int(done.stderr.splitlines()[-1]) < 1.5 * 2**30


def test_help_lists_its_options_and_its_corpus(place):
    said = " ".join(eegkd(place, "distill", "cascade", "--help").stdout.split())
    for option in ("--weights", "--night.eval_every", "--data.corpus", "pulses"):
        assert option in said


def test_a_killed_run_ends_with_the_same_results(whole, resumed):
    names = ("results.json", "splits.json")
    assert all((whole / n).read_bytes() == (resumed / n).read_bytes() for n in names)
    files = sorted(p.relative_to(whole) for p in whole.glob("fold0/**/*.*"))
    assert files == sorted(p.relative_to(resumed) for p in resumed.glob("fold0/**/*.*"))
    for name in files:
        if name.suffix == ".safetensors":
            assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
        if name.suffix == ".npz":
            with np.load(whole / name) as a, np.load(resumed / name) as b:
                np.testing.assert_array_equal(a["prob"], b["prob"], str(name))


def test_each_stage_leaves_what_it_has(resumed):
    own = {
        stage: {p.name for p in (resumed / "fold0" / stage).iterdir()}
        for stage in ("lens", "tower", "night", "rater")
    }
    judged, trained = {"val.npz", "test.npz"}, {"variables.safetensors"}
    assert own["lens"] == judged | {"done.json"}
    assert own["tower"] == trained | {"done.json"}
    assert own["night"] == judged | trained | {"done.json"}
    assert own["rater"] == own["night"] | {"part1", "part2"}
    rows = json.loads((resumed / "results.json").read_text())
    models = {"lens", "night", "rater", "student", "no_teacher", "shuffled_teacher"}
    # alpha_0 was not asked for: what the verdict rests on is always trained.
    assert {row["model"] for row in rows} == {*models, "alpha_0", "linear"}
    assert all(row["verdict"] or row["reason"] for row in rows)
    page = (resumed / "report.html").read_text()
    assert "cascade on pulses" in page
    assert "shuffled_teacher" in page


def test_each_stage_is_trained_as_it_asks(whole):
    def done(folder):
        return json.loads((whole / "fold0" / folder / "done.json").read_text())

    # Four people train, on 18, 24, 18 and 24 windows.
    steps = {"tower": 2 * (84 // 8), "night": 3 * (4 // 2), "rater": 84 // 4}
    assert {name: done(name)["steps"] for name in steps} == steps
    assert done("student/seed0")["steps"] == 3 * (84 // 12)
    log = [json.loads(x) for x in (whole / "metrics.jsonl").read_text().splitlines()]
    for name, every in {"tower": 5, "night": 2, "rater": 4, "student": 3}.items():
        judged = [
            row["step"]
            for row in log
            if row["model"] == name and any(key.startswith("val/") for key in row)
        ]
        assert judged[:2] == [every, 2 * every], name
    tower = [row for row in log if row["model"] == "tower"]
    losses = [row["val/loss"] for row in tower if "val/loss" in row]
    assert done("tower")["best_value"] == min(losses)
    parts = {row["model"] for row in log if row["model"].startswith("rater/")}
    assert parts == {"rater/part1", "rater/part2"}


def test_it_is_judged_exported_and_used(place, resumed):
    before = (resumed / "results.json").read_bytes()
    eegkd(place, "evaluate", "resumed")
    assert (resumed / "results.json").read_bytes() == before
    eegkd(place, "export", "resumed", "--runs", "0", "--format", "stablehlo")
    assert (resumed / "student" / "model.stablehlo").is_file()
    card = (resumed / "student" / "README.md").read_text()
    assert "student of cascade on pulses" in card
    args = ("predict", "corpus", "--data.corpus", "pulses", "--model", "resumed")
    eegkd(place, *args)
    lines = (place / "predictions" / "a_windows.tsv").read_text().splitlines()
    assert lines[0].split("\t")[-2:] == ["rest", "task"]
    assert len(lines) == 1 + 18
    said = eegkd(place, *args, "--row", "night", code=2).stderr
    assert "night cannot be used by itself: it looks at whole recordings" in said


def test_other_weights_are_refused(place, resumed):
    file = place / "lens.safetensors"
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        said = eegkd(place, "distill", "--resume", "resumed", code=2).stderr
        assert "other weights of lens for its stage lens: lens.safetensors" in said
        file.unlink()
        said = eegkd(place, "evaluate", "resumed", code=2).stderr
        assert "lens.safetensors is gone" in said
    finally:
        file.write_bytes(sound)
    eegkd(place, "distill", "--resume", "resumed")


def test_a_prepare_of_another_length_is_refused(place):
    args = ("distill", "cascade", *OPTIONS, "--out", "broken", "--broken", "True")
    said = eegkd(place, *args, code=2).stderr
    assert "prepare of cascade returns label of shape [7] for 8 examples" in said
