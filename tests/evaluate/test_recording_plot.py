"""The figure of one recording: traces, true events and predictions."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from eegkd.evaluate.events import Detection, WindowTrack
from eegkd.evaluate.report import recording
from eegkd.evaluate.report.figure import to_png

TRACK = WindowTrack(
    np.arange(0.0, 60, 4),
    np.linspace(0, 1, 15),
    4.0,
    60.0,
    np.array([[20.0, 40.0]]),
)


def traces(channels=3):
    signal = np.random.default_rng(0).normal(size=(channels, 60 * 100))
    return signal, [f"C{i}" for i in range(channels)], 100.0


FOUND = [Detection(30.0, 30.0, 0.8)]


def pixels(*, track=TRACK, detections=FOUND, **changes):
    figure = recording.recording_figure(
        *traces(), track, detections, threshold=0.5, **changes
    )
    return imread(io.BytesIO(to_png(figure, dpi=50)))


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
    figure = recording.recording_figure(
        *traces(25), TRACK, [], threshold=0.5, title="x"
    )
    top = figure.axes[0]
    assert len(top.get_yticklabels()) == 19
    assert top.get_title(loc="left") == "x (19 of 25 channels)"
    path = recording.prediction_plot(
        tmp_path / "p.png", *traces(25), TRACK, [], threshold=0.5
    )
    assert imread(path).ndim == 3


def test_traces_of_flat_and_missing_channels_are_drawn():
    signal = np.zeros((2, 500))
    signal[1] = np.nan
    figure = recording.recording_figure(
        signal, ["A", "B"], 100.0, TRACK._replace(duration_s=5.0), [], threshold=0.5
    )
    assert len(to_png(figure, dpi=40)) > 1000


def test_long_traces_keep_their_extremes():
    trace = np.zeros((1, 100_000))
    trace[0, 77_777], trace[0, 33_333] = 5.0, -4.0
    times, values = recording._envelope(trace, 100.0)
    assert values.shape[1] <= 3000
    assert (values.max(), values.min()) == (5.0, -4.0)
    assert times[values[0].argmax()] == pytest.approx(777.77, abs=1.0)
    short_times, same = recording._envelope(trace[:, :100], 100.0)
    assert np.array_equal(same, trace[:, :100])
    assert short_times[-1] == 0.99
