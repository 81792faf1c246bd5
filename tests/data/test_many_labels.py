"""Tables of many rows and classes: the same labels, in time that grows with them."""

import time

import numpy as np
import pytest

from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.windows.cutting import cut_windows
from eegkd.data.windows.files import count_windows


def recording(events, *, num=300, rate=10.0):
    return Recording(
        **{"signal": np.zeros((1, num), np.float32), "channels": ("Cz",)},
        **{"kinds": ("eeg",), "units": ("uV",), "rate": rate, "events": tuple(events)},
    )


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_labelled_as_sample_by_sample(seed):
    rng = np.random.default_rng(seed)
    classes = ["a", "b", "c"]
    events = [
        Event(
            onset_s=float(rng.uniform(0, 30)),
            duration_s=float(rng.choice([0, 0.04, rng.uniform(0, 8)])),
            label=str(rng.choice([*classes, "unlabelled"])),
        )
        for _ in range(12)
    ]
    found = cut_windows(
        recording(events),
        **{"window_s": 2.0, "overlap": 0.5, "classes": classes, "background": "a"},
        positive_fraction=0.5,
    )
    names = ["unlabelled", *classes]
    inside = np.zeros((4, 300 + 200), int)
    for event in events:
        first = round(event.onset_s * 10)
        stop = round((event.onset_s + event.duration_s) * 10)
        inside[names.index(event.label), first:stop] = 1
    want = []
    for start in np.rint(found.start_s * 10).astype(int):
        cover = inside[:, start : min(start + 20, 300)].sum(axis=1)
        best = max(range(4), key=lambda i: (cover[i], i))
        want.append(best - 1 if cover[best] >= 10 else 0)
    assert found.label.tolist() == want


def test_thousands_of_classes_take_no_time():
    def seconds(num):
        events = [
            Event(onset_s=0.1 * i, duration_s=0.5, label=f"c{i}") for i in range(num)
        ]
        start = time.process_time()
        windows = cut_windows(
            recording(events, num=20_000),
            **{"window_s": 2.0, "overlap": 0.0, "background": None},
            **{"classes": [f"c{i}" for i in range(num)], "positive_fraction": 0.2},
        )
        assert windows.label[0] == 15
        return time.process_time() - start

    seconds(100)
    assert seconds(10_000) < 3


def test_windows_of_thousands_of_classes_are_counted():
    label = np.arange(20_000).repeat(3)
    index = {
        "label": np.append(label, -1),
        "subject": np.append(np.tile(["a", "b", "b"], 20_000), "b"),
        "on_grid": np.ones(60_001, bool),
    }
    found = count_windows(index, [f"c{i}" for i in range(20_000)])
    assert set(found["classes"].values()) == {3}
    assert found["unlabelled"] == 1
    assert set(found["subjects"]["b"].values()) == {2}
