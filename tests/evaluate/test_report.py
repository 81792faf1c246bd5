import functools
import html.parser
import re
import time

import numpy as np
import pytest

from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.assays import ASSAYS
from eegkd.evaluate.events import EventsConfig, WindowTrack, operating_curve
from eegkd.evaluate.evidence import Assay, Cost, Evidence, always
from eegkd.evaluate.predictions import make_predictions
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.page import render_page, write_page
from eegkd.evaluate.report.parts import note, section, table
from eegkd.evaluate.statistics import summarise
from eegkd.host.text import visible

WINDOW_S = 4.0
SLOW = ("curves", "confusion", "calibration", "events")


def run_of(gain, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 160)
    z = 1 / (1 + np.exp(-gain * (2 * label - 1) - rng.normal(size=160)))
    subject, start_s = np.repeat(range(8), 20), np.tile(np.arange(20) * WINDOW_S, 8)
    prob = np.stack([1 - z, z], 1)
    return make_predictions(prob, label, subject, start_s=start_s)


RUNS = {
    "linear": [run_of(0.3, 1)],
    "small_net": [run_of(2.0, 2)],
    "student": [run_of(1.5, 3), run_of(1.5, 4)],
    "no_teacher": [run_of(0.4, 5)],
    "teacher": [run_of(1.0, 6)],
}
LOG = [
    {"model": model, "fold": 0, "seed": 0, "step": step, "loss": 1.0, "val/auroc": 1.0}
    for model in ("student", "teacher")
    for step in range(5)
]
TRACK = WindowTrack(
    np.arange(0.0, 60, 4),
    np.linspace(0, 1, 15),
    4.0,
    60.0,
    np.array([[20.0, 40.0]]),
)


def store_of(**changes):
    event = {"onset_s": 20.0, "duration_s": 20.0, "label": "<seizure>", "channels": []}
    recordings = {
        f"{i}": {"duration_s": 20 * WINDOW_S, "events": [event]} for i in range(8)
    }
    one = run_of(0, 0)
    index = {
        "recording_id": one.recording,
        "subject": one.subject,
        "start_s": one.start_s,
        "label": one.label,
    }
    manifest = {
        "corpus": "synthetic",
        "classes": ["rest & calm", "<seizure>"],
        "background": "rest & calm",
        "channels": ["C0", "C1", "C2"],
        "units": ["zscore"] * 3,
        "rate": 100.0,
        "window_s": WINDOW_S,
        "recordings": recordings,
        "task": {"metrics": ["accuracy", "auroc"], "monitor": "auroc"},
        "bayes": {"accuracy": 0.93},
        "preprocessing": {"band": [0.5, 40.0], "filter_order": 4},
    }
    signal = np.random.default_rng(0).normal(size=(160, 3, 400))
    return WindowStore.from_arrays(None, signal, index, manifest | changes)


def evidence_of(runs=RUNS, store=None, **changes):
    folds = {m: {i: [p] for i, p in enumerate(seeds)} for m, seeds in runs.items()}
    given = {
        "test": folds,
        "val": folds,
        "store": store or store_of(),
        "fold": Fold(0, *[np.arange(160)] * 3),
        "log": LOG,
        "title": "A <run>",
        "split": "kfold",
        "seed": 7,
        "events": EventsConfig(threshold=0.5),
        "record": {"note": "</script>"},
    }
    return Evidence(**given | changes)


def short(*args, results=None, **changes):
    """The same without its slow figures."""
    evidence = evidence_of(*args, **changes)
    kept = {a.name: a.run(evidence) for a in ASSAYS if a.name not in SLOW}
    return render_page(evidence, kept | (results or {}))


@functools.cache
def plain():
    """The page that nothing is changed of, drawn once for all that look at it."""
    return short()


@pytest.fixture(scope="module")
def whole():
    evidence = evidence_of(
        costs={"student": Cost(123456, 23456)},
        call=lambda row, size: functools.partial(time.sleep, 0.001),
    )
    results = {assay.name: assay.run(evidence) for assay in ASSAYS}
    return evidence, results, render_page(evidence, results)


@pytest.fixture(scope="module")
def page(whole):
    return whole[-1]


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
        "Bayes accuracy of raw windows",
        "a hundredth of a step shows 2.4 s before it",
    ):
        assert part in text
    for title in ("Results", "Comparisons", "Training", "Confusion", "Reliability"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 4


NAMES = ("[/red]", "<b>&amp;", "$x$", "Łódź", "א", "x" * 200, "a\x1b\u202e\udce9")


def test_names_are_text_on_the_page(tmp_path):
    classes = [" ".join(NAMES[:4]), " ".join(NAMES[4:])]
    store = store_of(classes=classes, background=classes[0], corpus=classes[1])
    evidence = evidence_of(store=store, title=" ".join(NAMES), record={"a": NAMES})
    kept = {a.name: a.run(evidence) for a in ASSAYS if a.name not in SLOW}
    path = write_page(tmp_path / "report.html", evidence, kept)
    page = path.read_text(encoding="utf-8")
    text = "".join(parse(page).text)
    for name in NAMES:
        assert text.count(visible(name)) >= 2, name
    assert '"Łódź"' in text
    assert not re.search("[\x1b\u202e]|<b>&amp;", page)


def test_the_operating_curve_is_drawn():
    svg = figures.operating_svg({"student": operating_curve([TRACK])})
    parse(svg)
    assert "false alarms / 24 h" in svg


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
        ({"leaks": True}, "leaks subjects"),
        ({"store": store_of(has_subjects=False)}, "no subject split exists"),
        ({"notes": ["Beware & doubt"]}, "Beware &amp; doubt"),
    ],
)
def test_stamps_appear_only_when_due(changes, stamp):
    assert stamp in short(**changes)
    assert stamp not in plain()


def test_a_teacher_below_the_small_net_is_said():
    assert "cannot show transfer" in plain()
    strong = RUNS | {"teacher": [run_of(4.0, 6)]}
    page = short(strong)
    assert "cannot show transfer" not in page


def test_a_bare_run_has_no_empty_sections():
    alone = {"student": [run_of(1, 0)]}
    store = store_of(background=None, has_subjects=False, bayes={})
    page = short(alone, store=store, log=(), results={"events": {}})
    parse(page)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Results"]
    assert ">nan" not in page


def test_measures_and_weights_of_layers_are_shown():
    def one(mean, by_class):
        return {"mean": mean, "by_class": by_class}

    weights = {"alpha_embed": one(0.25, [0.25, None])}
    weights |= {"alpha_block_0": one(0.75, [0.75, None])}
    watched = dict.fromkeys((*weights, "routing_entropy", "routing_variance"), 0.5)
    watched |= {"routing_entropy": 0.69, "routing_variance": 0.01}
    both = {f"{part}/{k}": v for part in ("train", "val") for k, v in watched.items()}
    log = [
        {"model": model, "fold": 0, "seed": 0, "step": step, **both}
        for model in ("shuffled_teacher", "student", "static")
        for step in range(2)
    ]
    measured = {
        "student": [{"rank_tokens": one(12.5, [1.0, 1.0]), **weights}],
        "no_teacher": [{"rank_compressed": one(3.25, [1.0, 1.0])}],
        "shuffled_teacher": [weights],
        "static": [weights],
    }
    groups = {"routing": tuple(weights)}
    page = short(measured=measured, groups=groups, log=log)
    text = parse(page).text
    table = page[page.index("<h2>Measured inside") : page.index("<h2>Weights of")]
    assert "Weights of the teacher's layers" in text
    assert re.findall(r"<th.*?>([^<]*)</th>", table) == [
        "model",
        "rank tokens",
        "rank compressed",
    ]
    assert "12.500" in table
    figure = page[page.index("<h2>Weights of") :]
    for part in ("student", "static", "embed", "0.75", "entropy 0.69 nats"):
        assert part in figure
    assert "shuffled_teacher" not in figure[: figure.index("</figure>")]
    assert "<h2>Weights of" not in short(measured=measured, groups=groups)


def test_undefined_values_are_dashes():
    one_class = run_of(1, 0)
    one_class = one_class._replace(label=(one_class.subject == "0").astype(np.int32))
    runs = {"student": [one_class], "linear": [one_class]}
    page = short(runs, store=store_of(task={"metrics": ["auroc"]}))
    assert "of a cohort of 8 subjects, bootstrap interval" in page
    assert "too few units: 8, and a verdict needs 20" in page
    assert 'class="chip none"' in page
    assert ">nan" not in page
    bare = one_class._replace(label=np.zeros_like(one_class.label))
    page = short({"student": [bare]}, store=store_of(task={"metrics": ["auroc"]}))
    assert "Left out, with a single class (AUROC: 8)" in page
    assert ">nan" not in page
    parse(page)


def test_the_report_is_written_whole(tmp_path, whole):
    evidence, results, page = whole
    path = write_page(tmp_path / "runs" / "report.html", evidence, results)
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        write_page(tmp_path / "file" / "report.html", evidence, {})


def test_audits_are_shown_where_they_were_made():
    assert "Agreement with the teacher" not in short(results={"agreement": {}})
    row = {"top1": 0.75, "kl": 0.123, "by_class": [0.5, None]}
    found = {"accuracy": 0.625, "chance": 0.125, "n_subjects": 8}
    page = short(
        results={
            "agreement": {"linear": row, "student": row},
            "identity": {"teacher <i>": found},
        }
    )
    order = [page.index(f"<td>{name}</td>") for name in ("student", "linear")]
    assert order == sorted(order)
    assert "0.123" in page
    assert "teacher &lt;i&gt;" in page
    assert "0.625" in page


def test_an_assay_of_a_third_party_has_its_section_with_its_words_escaped():
    def show(result, evidence):
        rows = [(name, str(value)) for name, value in result.items()]
        return section("Mine & yours", table(("<row>", "n"), rows), note("a < b"))

    mine = Assay("mine", always, lambda evidence: {"x <y>": 3}, show)
    evidence = evidence_of()
    page = render_page(evidence, {"mine": mine.run(evidence)}, (mine,))
    parsed = parse(page)
    assert {"Mine & yours", "x <y>", "3", "<row>", "a < b"} <= set(parsed.text)
    assert "<y>" not in page


def test_rows_of_another_length_than_the_head_are_refused():
    with pytest.raises(ValueError, match="2 columns, but a row of 1"):
        table(("a", "b"), [("x",)])
