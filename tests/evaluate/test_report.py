import functools
import html.parser
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from eegkd.errors import InputError
from eegkd.evaluate import plots
from eegkd.evaluate.events import Detection, WindowTrack, operating_curve
from eegkd.evaluate.identity import Identity
from eegkd.evaluate.measured import Measured, Routing
from eegkd.evaluate.predictions import make_predictions
from eegkd.evaluate.report import (
    Curve,
    Example,
    ModelFacts,
    ReportContent,
    render_report,
    write_report,
)
from eegkd.evaluate.statistics import summarise


def run_of(gain, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 160)
    z = 1 / (1 + np.exp(-gain * (2 * label - 1) - rng.normal(size=160)))
    return make_predictions(np.stack([1 - z, z], 1), label, np.repeat(range(8), 20))


RUNS = {
    "linear": [run_of(0.3, 1)],
    "small_net": [run_of(2.0, 2)],
    "student": [run_of(1.5, 3), run_of(1.5, 4)],
    "no_teacher": [run_of(0.4, 5)],
    "teacher": [run_of(1.0, 6)],
}
CURVE = Curve(
    step=np.arange(5.0), loss=np.ones(5), val_step=np.arange(2.0), val_metric=np.ones(2)
)
TRACK = WindowTrack(
    np.arange(0.0, 60, 4),
    np.linspace(0, 1, 15),
    4.0,
    60.0,
    np.array([[20.0, 40.0]]),
)


def example(channels=3):
    signal = np.random.default_rng(0).normal(size=(channels, 60 * 100))
    names = [f"C{i}" for i in range(channels)]
    found = [Detection(30.0, 30.0, 0.8)]
    return Example(
        signal=signal, channels=names, rate=100.0, track=TRACK, detections=found,
        threshold=0.5, title="sub-01",
    )  # fmt: skip


def content(**changes):
    best = {name: seeds[0] for name, seeds in RUNS.items() if name != "linear"}
    given = {
        "title": "A <run>",
        "corpus": "synthetic",
        "split": "kfold",
        "leaks_subjects": False,
        "has_subjects": True,
        "seed": 7,
        "class_names": ["rest & calm", "<seizure>"],
        "metrics": ["accuracy", "auroc"],
        "summary": summarise(RUNS, ["accuracy", "auroc"]),
        "facts": {"student": ModelFacts(parameters=123456, windows_per_s=2500.0)},
        "curves": {"student": [CURVE], "teacher": [CURVE]},
        "predictions": best,
        "calibrated": {"student": best["student"]},
        "temperatures": {"student": 1.25},
        "example": example(),
        "event_results": {
            "student": {
                key: {"sensitivity": 1.0, "precision": None, "f1": 0.5, "fpRate": 2.0}
                for key in ("event_results", "sample_results")
            }
        },
        "operating": {"student": operating_curve([TRACK])},
        "bayes": {"accuracy": 0.93},
        "config": {"note": "</script>"},
    }
    return ReportContent(**given | changes)


def short(**changes):
    """The same without its slow figures."""
    left_out = {"curves": {}, "predictions": {}, "calibrated": {}, "example": None}
    return render_report(content(**left_out | changes))


@functools.cache
def plain():
    """The page that nothing is changed of, drawn once for all that look at it."""
    return short()


@pytest.fixture(scope="module")
def page():
    return render_report(content())


class Balance(html.parser.HTMLParser):
    """Collects text, ids and outside addresses; fails on tags closed out of order."""

    void = {"meta", "img", "link", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.sources += [given[k] for k in ("src", "href", "xlink:href") if k in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_stands_alone(page):
    parsed = parse(page)
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in parsed.sources)
    assert "<script" not in page
    assert "url(http" not in page
    assert "@import" not in page
    text = " ".join("".join(parsed.text).split())
    for part in (
        "A <run>",
        "<seizure>",
        "123,456",
        "student − teacher",
        "Bayes accuracy",
    ):
        assert part in text
    for title in ("Results", "Comparisons", "Training", "Confusion", "Reliability"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 5


def test_clip_paths_of_different_figures_do_not_collide(page):
    clips = [re.findall(r'<clipPath id="(.*?)"', svg) for svg in page.split("<svg")[1:]]
    flat = [c for one in clips for c in one]
    assert len(flat) == len(set(flat)) > 0


def test_rows_are_in_order_with_their_verdicts():
    page = plain()
    table = page[page.index("<h2>Results") : page.index("<h2>Comparisons")]
    names = re.findall(r"<td><b>(\w+)</b>", table)
    assert names == ["teacher", "student", "no_teacher", "small_net", "linear"]
    rows = {r["model"]: r for r in summarise(RUNS, ["accuracy"]).rows}
    chips = re.findall(r'class="chip (\w+)"', table)
    assert chips == [rows[name]["verdict"] for name in names]
    assert f"{rows['student']['mean']:.3f}" in table


@pytest.mark.parametrize(
    ("changes", "stamp"),
    [
        ({"leaks_subjects": True}, "leaks subjects"),
        ({"has_subjects": False}, "no subject split exists"),
        ({"notes": ["Beware & doubt"]}, "Beware &amp; doubt"),
    ],
)
def test_stamps_appear_only_when_due(changes, stamp):
    assert stamp in short(**changes)
    assert stamp not in plain()


def test_a_teacher_below_the_small_net_is_said():
    assert "cannot show transfer" in plain()
    strong = RUNS | {"teacher": [run_of(4.0, 6)]}
    page = short(summary=summarise(strong, ["accuracy", "auroc"]))
    assert "cannot show transfer" not in page


def test_a_bare_run_has_no_empty_sections():
    alone = summarise({"student": [run_of(1, 0)]}, ["accuracy"])
    page = render_report(
        ReportContent(
            title="t", corpus="c", split="s", leaks_subjects=False, has_subjects=True,
            seed=0, class_names=["a", "b"], metrics=["accuracy"], summary=alone,
        )
    )  # fmt: skip
    parse(page)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Results"]
    assert ">nan" not in page


def test_measures_and_weights_of_layers_are_shown():
    weights = Routing(
        layers=("embed", "block_0"),
        by_class=np.array([[0.25, np.nan], [0.75, np.nan]]),
        step=np.arange(2.0),
        train=np.full((2, 2), 0.5),
        val=np.full((2, 2), 0.5),
        entropy=np.full(2, 0.69),
        variance=np.full(2, 0.01),
    )
    measured = {
        "student": {
            "rank_tokens": Measured(12.5, np.ones(2), 3),
            "alpha_embed": Measured(0.25, np.ones(2), 3),
        },
        "no_teacher": {"rank_compressed": Measured(3.25, np.ones(2), 3)},
    }
    routing = {"shuffled_teacher": weights, "student": weights, "static": weights}
    page = short(measured=measured, routing=routing)
    parse(page)
    table = page[page.index("<h2>Measured inside") : page.index("<h2>Weights of")]
    assert re.findall(r"<th.*?>([^<]*)</th>", table) == [
        "model",
        "rank tokens",
        "rank compressed",
    ]
    assert "12.500" in table
    figure = page[page.index("<h2>Weights of") :]
    for text in ("student", "static", "embed", "0.75", "entropy 0.69 nats"):
        assert text in figure
    assert "shuffled_teacher" not in figure[: figure.index("</figure>")]
    assert "<h2>Weights of" not in short(measured=measured)


def test_undefined_values_are_dashes():
    one_class = run_of(1, 0)
    one_class = one_class._replace(label=(one_class.subject == "0").astype(np.int32))
    rows = summarise({"student": [one_class], "linear": [one_class]}, ["auroc"])
    page = short(summary=rows, metrics=["auroc"])
    assert "Left out, with a single class (AUROC: 8)" in page
    assert ">nan" not in page
    parse(page)


def test_the_report_is_written_whole(tmp_path, page):
    path = write_report(tmp_path / "runs" / "report.html", content())
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        write_report(tmp_path / "file" / "report.html", content())


def pixels(**changes):
    one = example(changes.pop("channels", 3))
    track = changes.pop("track", one.track)
    detections = changes.pop("detections", one.detections)
    figure = plots.recording_figure(
        one.signal, one.channels, one.rate, track, detections, threshold=0.5, **changes
    )
    return imread(io.BytesIO(plots.to_png(figure, dpi=50)))


def test_the_recording_shows_detections_and_truth():
    both = pixels()
    assert both.shape[1] == 550
    for other in (
        pixels(detections=[]),
        pixels(track=TRACK._replace(truth=np.zeros((0, 2)))),
        pixels(track=TRACK._replace(prob=1 - TRACK.prob)),
    ):
        assert other.shape == both.shape
        assert np.abs(other - both).max() > 0.2


def test_at_most_nineteen_channels_are_drawn(tmp_path):
    one = example(25)
    figure = plots.recording_figure(
        one.signal, one.channels, one.rate, one.track, [], threshold=0.5, title="x"
    )
    top = figure.axes[0]
    assert len(top.get_yticklabels()) == 19
    assert top.get_title(loc="left") == "x (19 of 25 channels)"
    path = plots.prediction_plot(
        tmp_path / "p.png", one.signal, one.channels, 100.0, TRACK, [], threshold=0.5
    )
    assert imread(path).ndim == 3


def test_traces_of_flat_and_missing_channels_are_drawn():
    signal = np.zeros((2, 500))
    signal[1] = np.nan
    figure = plots.recording_figure(
        signal, ["A", "B"], 100.0, TRACK._replace(duration_s=5.0), [], threshold=0.5
    )
    assert len(plots.to_png(figure, dpi=40)) > 1000


def test_long_traces_keep_their_extremes():
    trace = np.zeros((1, 100_000))
    trace[0, 77_777], trace[0, 33_333] = 5.0, -4.0
    times, values = plots._envelope(trace, 100.0)
    assert values.shape[1] <= 3000
    assert (values.max(), values.min()) == (5.0, -4.0)
    assert times[values[0].argmax()] == pytest.approx(777.77, abs=1.0)
    short_times, same = plots._envelope(trace[:, :100], 100.0)
    assert np.array_equal(same, trace[:, :100])
    assert short_times[-1] == 0.99


def test_audits_are_shown_where_they_were_made():
    assert "Agreement with the teacher" not in render_report(content())
    row = {"top1": 0.75, "kl": 0.123, "by_class": [0.5, None]}
    page = render_report(
        content(
            agreement={"linear": row, "student": row},
            identity={"teacher <i>": Identity(0.625, 0.125, 8)},
        )
    )
    order = [page.index(f"<td>{name}</td>") for name in ("student", "linear")]
    assert order == sorted(order)
    assert "0.123" in page
    assert "teacher &lt;i&gt;" in page
    assert "0.625" in page
