"""Names of classes, models, channels and files in a report, a plot and a terminal."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np

from eegkd.evaluate.events import Detection, WindowTrack, operating_curve
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.figure import to_png
from eegkd.evaluate.report.recording import prediction_plot, recording_figure
from eegkd.host.text import visible

NAMES = (
    "[/red] [bold]x",
    "<script>alert(1)</script>",
    "$x^2$ & $\\frac{1",
    "_hidden $",
    "Zoë Łódź",
    "נבדק א",
    "مريض ١",
    "中文 ไทย",
    "x" * 200,
    "a\x1b[31m\u202eb\udce9\nc",
)


def svg_text(svg):
    """Returns the words of an SVG that is well-formed."""
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_classes_and_models_stand_in_figures_as_they_are():
    k = len(NAMES)
    counts = np.arange(k * k).reshape(k, k)
    models = {NAMES[2]: counts, "teacher": counts}
    text = svg_text(figures.confusion_svg(models, NAMES))
    for name in NAMES[:8]:
        shown = name if len(name) <= 12 else name[:11]
        assert shown in text, shown
    assert "x" * 11 + "…" in text
    assert "\x1b" not in text
    assert NAMES[2] in text
    cells = {NAMES[0]: np.arange(4 * k).reshape(k, 2, 2)}
    assert "$x^2$ & $\\f…" in svg_text(figures.cells_svg(cells, NAMES))


def test_a_legend_has_every_name():
    low, high = np.zeros(3), np.ones(3)
    weights = figures.Weights(
        names=NAMES[:8],
        by_class=np.full((8, 2), 0.5),
        step=np.arange(3.0),
        train=np.stack([low] * 8, axis=1),
        val=np.stack([high] * 8, axis=1),
        entropy=np.full(3, np.nan),
        variance=np.full(3, np.nan),
    )
    svg = figures.weights_svg({NAMES[3]: weights}, NAMES[:2], name="weights")
    text = svg_text(svg)
    for name in NAMES[:8]:
        assert text.count(visible(name)) >= 2, name


def test_an_axis_of_powers_of_ten_has_numbers():
    start = np.arange(60.0)
    track = WindowTrack(start, 1 - start / 60, 1.0, 60.0, np.array([[50.0, 60.0]]))
    text = svg_text(figures.operating_svg({"$a$": operating_curve([track])}))
    assert "$a$" in text
    assert "mathdefault" not in text
    assert re.search(r"\b1000\b", text)


def test_plots_of_recordings_are_drawn_whatever_their_names(tmp_path):
    signal = np.random.default_rng(0).normal(size=(len(NAMES), 400))
    start = np.arange(4.0)
    track = WindowTrack(start, start / 4, 1.0, 4.0, np.zeros((0, 2)))
    found = [Detection(1.0, 2.0, 0.8)]
    for name in NAMES:
        figure = recording_figure(
            signal, NAMES, 100.0, track, found, threshold=0.5, title=name
        )
        assert to_png(figure).startswith(b"\x89PNG")
        title = figure.axes[0].get_title(loc="left")
        assert len(title) <= 90
        assert visible(title) == title
    assert mpl.rcParams["text.parse_math"]
    path = tmp_path / "a.png"
    prediction_plot(
        path, signal, NAMES, 100.0, track, found, threshold=0.5, title=NAMES[2]
    )
    assert path.read_bytes().startswith(b"\x89PNG")
