"""The traces of a recording's plot: the same as of whole arrays, in less memory."""

import tracemalloc

import numpy as np

from eegkd.evaluate.events import WindowTrack
from eegkd.evaluate.report.recording import _envelope, _traces, recording_figure

RATE = 100.0


def test_traces_are_those_of_the_whole_array_to_the_last_bit():
    signal = np.random.default_rng(0).normal(3, 20, (5, 6001)).astype(np.float32)
    signal[3] = 7
    traces = np.asarray(signal, np.float64)
    traces = traces - np.median(traces, axis=1, keepdims=True)
    spread = np.percentile(np.abs(traces), 99, axis=1)
    scale = float(np.median(spread[spread > 0]))
    times, want = _envelope(np.clip(traces / (2.2 * scale), -0.7, 0.7), RATE)
    found_times, found = _traces(signal, RATE)
    np.testing.assert_array_equal(found_times, times)
    np.testing.assert_array_equal(found, want)


def test_a_long_recording_is_drawn_channel_by_channel():
    signal = np.ones((19, 400_000), np.float32)
    signal[:, ::2] = -1
    tracemalloc.start()
    _traces(signal, RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < signal.nbytes  # A float64 copy of it all has twice that.


def test_a_note_stands_between_title_and_traces():
    track = WindowTrack(np.arange(10.0), np.full(10, 0.2), 1.0, 10.0, np.zeros((0, 2)))
    signal = np.random.default_rng(1).normal(size=(2, 1000)).astype(np.float32)
    options = {"threshold": 0.5, "title": "name"}
    figure = recording_figure(
        signal, ("C3", "C4"), RATE, track, (), note="unlike: rate", **options
    )
    top = figure.axes[0]
    assert top.get_title("left") == "name\n"
    assert [text.get_text() for text in top.texts] == ["unlike: rate"]
    plain = recording_figure(signal, ("C3", "C4"), RATE, track, (), **options)
    assert plain.axes[0].get_title("left") == "name"
    assert not plain.axes[0].texts
