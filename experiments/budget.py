"""The label-budget curve: how score grows with the people whose labels are known.

One run for each number of labelled people, `OUT/people_N`, with the student, the same
student without soft targets (alpha_0) and without a teacher (no_teacher), all from the
teacher of the first run. `OUT/report.html` has the picture and the table, and
`OUT/budget.svg`, `budget.png` and `budget.json` hold them alone. The same command
goes on where it was stopped.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from eegkd.commands.options import open_data
from eegkd.errors import InputError
from eegkd.evaluate.report.figure import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    STYLE,
    TEAL,
    make_figure,
    to_png,
    to_svg,
)
from eegkd.evaluate.report.parts import (
    ENVIRONMENT,
    chip,
    figure,
    number,
    section,
    table,
    words,
)
from eegkd.evaluate.tasks import task_of
from eegkd.host.atomic import write_atomic
from eegkd.pipeline.folder import read_json, write_json
from eegkd.pipeline.run import MakeSystem, run_distillation

PEOPLE = (1, 2, 4, 8, 16)
"""Numbers of labelled people; all of a fold's come last."""
CONTROLS = ("alpha_0", "no_teacher")
LABELS = {
    "student": "student: labels and soft targets",
    "alpha_0": "alpha_0: the same start and class vectors, labels alone",
    "no_teacher": "no_teacher: labels alone",
}
COLOURS = {"student": BLUE, "alpha_0": TEAL, "no_teacher": MUTED}
_CAPTION = (
    "Above, the score of each model with its 95 % interval; below, the student minus "
    "each control, paired by person, with 95 % intervals. All windows of all training "
    "people have soft targets of one teacher a fold, which has seen all labels."
)


class Point(NamedTuple):
    """The runs' results at one number of labelled people.

    Attributes:
        people: Their number.
        rows: Rows of results.json on the first metric, by model.
        gains: Comparisons of the student with each control, as in summary.json.
    """

    people: int
    rows: Mapping[str, Mapping[str, Any]]
    gains: Mapping[str, Mapping[str, Any]]


def numbers_of_people(most: int) -> tuple[int, ...]:
    """Returns the numbers of labelled people where a fold trains on `most`."""
    return (*(number for number in PEOPLE if number < most), most)


def run_budget(make_system: MakeSystem, config: Any) -> None:
    """Trains all runs of the curve, then draws it.

    Raises:
        InputError: On bad options or data.
    """
    if config.train.labelled_people or config.teacher_run:
        raise InputError(
            "--table budget chooses --train.labelled_people and --teacher_run by "
            "itself: leave them."
        )
    out, console = Path(config.out).absolute(), Console()
    store, folds = open_data(config)
    subject = store.index["subject"]
    most = min(len(np.unique(subject[fold.train])) for fold in folds)
    numbers = numbers_of_people(most)
    folders = {num: out / f"people_{num}" for num in numbers}
    for i, (num, folder) in enumerate(folders.items(), 1):
        console.print(f"[bold]Run {i} of {len(numbers)}: labels of {num} people.[/]")
        own = dataclasses.replace(
            config,
            out=str(folder),
            rows=CONTROLS,
            teacher_run="" if i == 1 else str(folders[numbers[0]]),
            train=dataclasses.replace(config.train, labelled_people=num),
        )
        run_distillation(make_system, store, folds, own)
    metric = task_of(store.manifest).metrics[0]
    points = [read_point(folder, num, metric) for num, folder in folders.items()]
    write_curve(out, points, metric, f"{store.manifest['corpus']}: the label budget")
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def read_point(folder: Path, people: int, metric: str) -> Point:
    """Reads the results of a finished run."""
    rows = read_json(folder / "results.json")
    compared = read_json(folder / "summary.json")["comparisons"][metric]
    return Point(
        people,
        {row["model"]: row for row in rows if row["metric"] == metric},
        {name: compared[name] for name in CONTROLS},
    )


def write_curve(out: Path, points: Sequence[Point], metric: str, title: str) -> None:
    """Writes the picture, the report and the numbers."""
    with mpl.rc_context(STYLE):
        svg = to_svg(draw(points, metric), "label budget")
    write_atomic(out / "budget.svg", svg)
    with mpl.rc_context(STYLE):
        write_atomic(out / "budget.png", to_png(draw(points, metric)))
    found = [point._asdict() for point in points]
    write_json(out / "budget.json", {"metric": metric, "points": found})
    page = ENVIRONMENT.get_template("page.html.j2").render(
        title=title,
        leaks=False,
        has_subjects=True,
        warnings=[],
        facts={"metric": words(metric), "labelled people": _listed(points)},
        sections=[
            section("Score by labelled people", figure(svg, _CAPTION), _table(points))
        ],
        record="\n".join(f"people_{p.people}/report.html" for p in points),
    )
    write_atomic(out / "report.html", page)


def _listed(points: Sequence[Point]) -> str:
    return ", ".join(str(point.people) for point in points)


def _table(points: Sequence[Point]) -> str:
    head = ["labelled people", *LABELS, "teacher"]
    for name in CONTROLS:
        head += [f"student − {name}", "95 % interval", "verdict"]
    body = []
    for point in points:
        cells = [str(point.people)]
        cells += [number(point.rows[name]["mean"]) for name in (*LABELS, "teacher")]
        for gain in point.gains.values():
            span = f"{number(gain['low'])} to {number(gain['high'])}"
            cells += [number(gain["mean_difference"]), span, chip(gain["verdict"])]
        body.append(cells)
    return table(head, body, text_columns=(len(LABELS) + 4, len(LABELS) + 7))


def draw(points: Sequence[Point], metric: str) -> Figure:
    """Draws scores over gains, by the number of labelled people."""
    drawn, axes = make_figure(7.0, 4.6, 2, 1, sharex=True, height_ratios=[3, 2])
    top, low = axes[:, 0]
    place = np.arange(len(points))
    teacher = points[0].rows.get("teacher")
    if teacher is not None and teacher["mean"] is not None:
        top.axhline(teacher["mean"], color=AMBER, lw=1.2, ls=(0, (4, 3)))
        top.annotate(
            "teacher", (1, teacher["mean"]), (0, 2), color=AMBER, ha="right",
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8,
        )  # fmt: skip
    for i, (name, label) in enumerate(LABELS.items()):
        values = [_values(p.rows[name], "mean") for p in points]
        _bars(top, place + 0.08 * (i - 1), values, COLOURS[name], label)
    for i, name in enumerate(CONTROLS):
        values = [_values(p.gains[name], "mean_difference") for p in points]
        shift = 0.08 * (i - 0.5)
        _bars(low, place + shift, values, COLOURS[name], f"student − {name}")
    low.axhline(0, color=INK, lw=0.8)
    low.set_xticks(place, [str(p.people) for p in points[:-1]] + [_last(points)])
    low.set_xlabel("people whose labels the student may use")
    top.set_ylabel(words(metric))
    low.set_ylabel("gain")
    for ax in (top, low):
        ax.grid(axis="y")
        ax.legend(loc="best", fontsize=8)
    drawn.align_ylabels(axes[:, 0])
    return drawn


def _last(points: Sequence[Point]) -> str:
    return f"all {points[-1].people}"


def _values(found: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Returns a mean and its interval; NaN where there is none."""
    three = (found[name], found["low"], found["high"])
    mean, low, high = (np.nan if value is None else float(value) for value in three)
    return mean, low, high


def _bars(
    ax: Axes,
    place: np.ndarray,
    values: Sequence[tuple[float, float, float]],
    colour: str,
    label: str,
) -> None:
    mean, low, high = np.array(values).T
    ax.plot(place, mean, color=colour, lw=1.4, marker="o", ms=4.5, label=label)
    ax.vlines(place, low, high, color=colour, lw=1.6)
