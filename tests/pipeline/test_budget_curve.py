"""The label-budget curve: its numbers, its picture, and a whole tiny one."""

import dataclasses

import pytest

from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.pipeline.folder import read_json
from eegkd.systems.distilclip_eeg import make_system
from experiments import budget
from experiments.budget import Point, numbers_of_people, run_budget, write_curve
from tests.support import tiny_run
from tests.support.stores import tiny_store


def point(people, shift, *, known=True):
    """Results at one number of people; an interval may be unknown."""

    def row(mean):
        return {"mean": mean, "low": mean - 0.1 if known else None, "high": mean + 0.1}

    means = {"teacher": 0.9, "student": 0.6, "alpha_0": 0.5, "no_teacher": 0.4}
    rows = {name: row(mean + shift) for name, mean in means.items()}
    gain = {"mean_difference": 0.1, "low": 0.02, "high": 0.18, "verdict": "better"}
    if not known:
        gain |= {"low": None, "high": None, "verdict": None}
    return Point(people, rows, {name: gain for name in budget.CONTROLS})


@pytest.mark.parametrize(
    ("most", "numbers"),
    [(120, (1, 2, 4, 8, 16, 120)), (16, (1, 2, 4, 8, 16)), (3, (1, 2, 3)), (1, (1,))],
)
def test_all_people_come_last_and_once(most, numbers):
    assert numbers_of_people(most) == numbers


def test_the_picture_and_the_table_say_the_same(tmp_path):
    points = [point(1, 0.0, known=False), point(4, 0.1), point(120, 0.2)]
    write_curve(tmp_path, points, "balanced_accuracy", "made: the label budget")
    page = (tmp_path / "report.html").read_text()
    svg = (tmp_path / "budget.svg").read_text()
    assert svg in page
    for text in ("all 120", "student − alpha_0", "balanced accuracy", "teacher"):
        assert text in svg
    for text in ("0.700", "0.020 to 0.180", "people_4/report.html", "better"):
        assert text in page
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")
    found = read_json(tmp_path / "budget.json")
    assert [one["people"] for one in found["points"]] == [1, 4, 120]
    assert found["points"][1]["gains"]["alpha_0"]["low"] == 0.02
    assert "nan" not in page.lower().replace("nance", "")


def test_what_the_curve_chooses_cannot_be_given(tmp_path):
    config = tiny_run.tiny_config(tmp_path, teacher_run=str(tmp_path / "other"))
    with pytest.raises(InputError, match="by itself: leave them"):
        run_budget(make_system, config)


@pytest.mark.slow
def test_one_teacher_serves_all_numbers_and_the_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "PEOPLE", (1,))
    store = tiny_store()
    WindowStore.from_arrays(
        tmp_path / "store", store.signal, store.index, store.manifest
    )
    config = tiny_run.tiny_config(
        tmp_path / "out",
        store=str(tmp_path / "store"),
        train=dataclasses.replace(tiny_run.tiny_config("").train, max_steps=4),
    )
    run_budget(make_system, config)
    out = tmp_path / "out"
    folders = sorted(path.name for path in out.glob("people_*"))
    assert len(folders) == 2
    assert folders[0] == "people_1"
    teacher = [
        (out / name / "fold0/teacher/variables.safetensors").read_bytes()
        for name in folders
    ]
    assert len(set(teacher)) == 1
    weights = out / folders[1] / "fold0/student/seed0/variables.safetensors"
    before, numbers = weights.stat().st_mtime_ns, (out / "budget.json").read_bytes()
    (out / "budget.json").unlink()
    monkeypatch.setattr("eegkd.pipeline.fit.train", None)
    run_budget(make_system, config)
    assert weights.stat().st_mtime_ns == before
    assert (out / "budget.json").read_bytes() == numbers
