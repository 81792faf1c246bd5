"""The SzCORE event rules restated on whole samples of a mask, loops and all."""

import numpy as np

RATE = 10


def events_of(mask):
    found, start = [], None
    for i, value in enumerate([*mask, False]):
        if value and start is None:
            start = i
        if not value and start is not None:
            found.append([start, i])
            start = None
    return found


def merge_and_split(events, min_gap, max_length):
    merged = []
    for start, end in events:
        if merged and start - merged[-1][1] < min_gap:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    pieces = []
    for start, end in merged:
        while end - start > max_length:
            pieces.append((start, start + max_length))
            start += max_length
        pieces.append((start, end))
    return pieces


def event_counts(truth, detected, *, before_s=30, after_s=60, max_s=300, min_gap_s=90):
    """Returns hits, false alarms and reference events of two 10 Hz masks."""
    n = len(truth)
    ref, hyp = (
        merge_and_split(events_of(mask), min_gap_s * RATE, max_s * RATE)
        for mask in (truth, detected)
    )
    alarm = np.zeros(n, bool)
    for start, end in hyp:
        alarm[start:end] = True
    hits, claimed = 0, np.zeros(n, bool)
    for start, end in ref:
        window = slice(max(0, start - before_s * RATE), min(n, end + after_s * RATE))
        if alarm[window].any():
            hits += 1
            claimed[window] = True
    false = sum(not claimed[start:end].any() for start, end in hyp)
    return hits, false, len(ref)
