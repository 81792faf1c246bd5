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


def table_counts(reference, detected, duration):
    """Returns hits, false alarms and reference events of two tables of events.

    The rules restated on rows of (onset, end), in whole tenths of a second, in any
    order, nested or overlapping: every tenth of the recording is asked by itself.
    """
    ref, hyp = (_pieces_of(table, duration) for table in (reference, detected))
    hit = [
        piece
        for piece in ref
        if any(_overlap(_tolerant(piece, duration), alarm) for alarm in hyp)
    ]
    false = [
        alarm
        for alarm in hyp
        if not any(_overlap(_tolerant(piece, duration), alarm) for piece in hit)
    ]
    return len(hit), len(false), len(ref)


def _pieces_of(table, duration):
    """Merges and cuts the stretches of tenths that lie in some event."""
    inside = [False] * duration
    for onset, end in table:
        for tenth in range(max(0, onset), min(duration, end)):
            inside[tenth] = True
    pieces, silence = [], 90 * RATE
    for tenth, value in enumerate(inside):
        if not value:
            silence += 1
            continue
        if silence >= 90 * RATE:  # an event of its own
            pieces.append([tenth, tenth])
        pieces[-1][1] = tenth + 1
        silence = 0
    cut = []
    for onset, end in pieces:
        cut += [(at, min(at + 300 * RATE, end)) for at in range(onset, end, 300 * RATE)]
    return cut


def _tolerant(piece, duration):
    return max(0, piece[0] - 30 * RATE), min(duration, piece[1] + 60 * RATE)


def _overlap(one, other):
    return max(one[0], other[0]) < min(one[1], other[1])
