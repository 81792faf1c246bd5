"""Windows that were cut elsewhere: a folder of NumPy arrays, read without pickle.

`windows.json` lies at the top and says what all arrays share:

    {"channels": ["Fz", "Cz"], "rate": 200, "unit": "uV", "classes": ["rest", "task"]}

`unit` is uV, mV, V, or zscore for numbers that are scaled already; `classes` may be
left out. Beside it, or in folders below, lie any number of

    part.npz             arrays `signal` [n, c, t] and `label` [n], and as wanted
                         `subject`, `session`, `recording` and `split` [n]
    part.npy, part.csv   the signal alone, and those columns, one line per window

A label is a class's name, or its number (from 0, where `classes` lists them); an empty
one, -1, NaN or `unlabelled` is none, whatever the type. Where windows may have several,
it is their names or numbers with `;` between them ("AF;RBBB", and ";" alone for no
class at all), or `label` is [n, k], a column for each of `classes`: 1 yes, 0 no, -1 not
asked. Without
`subject` folds go by recording, or by file without that column either. `split` is
train, val or test, a person's the same throughout: what `--split fixed` takes.

Windows are not changed: options that filter, resample or cut them are refused.
"""

import csv
import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.data.columns import rows_to_texts, to_labels, to_texts
from eegkd.data.config import DataConfig
from eegkd.data.corpora import (
    SEPARATOR,
    UNLABELLED,
    Corpus,
    Source,
    folder_of,
    not_asked,
    split_label,
)
from eegkd.data.recordings.names import canonical_names, channel_kinds
from eegkd.data.recordings.reading import check_numbers
from eegkd.data.recordings.recording import Event, Recording, Unit
from eegkd.errors import InputError
from eegkd.host.arrays import damage, open_npy, open_npz
from eegkd.host.json_file import read_json

ABOUT_FILE = "windows.json"
COLUMNS = ("label", "subject", "session", "recording", "split")
PARTS = ("train", "val", "test")
_NUMBER = re.compile(r"\d{1,18}")
_MICROVOLTS = {"uV": 1.0, "mV": 1e3, "V": 1e6}
_CURE = (
    "Save plain arrays of numbers and texts with numpy.save or numpy.savez, the signal "
    "as `signal`, and whole."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _About:
    """Contents of `windows.json`."""

    channels: tuple[str, ...] = ()
    rate: float = 0.0
    unit: str | None = None
    classes: tuple[str | int, ...] = ()


class _Part(NamedTuple):
    """One file of windows: its shape, and one text per window and column."""

    path: Path
    shape: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.root`.

    Raises:
        InputError: If a file is missing or broken, or the files do not fit together.
    """
    root = folder_of(config.root, "arrays")
    about = _read_about(root / ABOUT_FILE, config)
    paths = sorted(p for p in root.rglob("*") if p.suffix in (".npz", ".npy"))
    if not paths:
        raise InputError(
            f"{root}: no .npz or .npy file in it. Set --data.root to the folder of the "
            "windows."
        )
    parts = tuple(_read_part(path, root, about) for path in paths)
    for part in parts:
        if part.shape[2] != parts[0].shape[2]:
            raise InputError(
                f"{part.path}: windows of {part.shape[2]} samples, and "
                f"{parts[0].path} has {parts[0].shape[2]}. Cut all to one length."
            )
    classes = _names(about) or _classes(parts)
    several = any(SEPARATOR in x for part in parts for x in part.columns["label"])
    sources = tuple(
        source
        for part in parts
        for source in _sources(root, part, about, classes, several)
    )
    has_subjects = all("subject" in part.columns for part in parts)
    split = _published(parts) if has_subjects else {}
    return Corpus(
        name="arrays",
        classes=classes,
        background=None,
        list_sources=functools.partial(_list, sources),
        read=read,
        defaults={
            "channels": about.channels,
            "rate": about.rate,
            "band": (0.0, 0.0),
            "notch": 0.0,
            "window_s": parts[0].shape[2] / about.rate,
            "overlap": 0.0,
        },
        has_subjects=has_subjects,
        fixed_split=functools.partial(_fixed_split, split) if split else None,
        licence="the user's own",
        fixed=("rate", "band", "notch", "window_s", "overlap"),
        options=("unit",),
        multilabel=several,
    )


def _list(sources: tuple[Source, ...], root: Path) -> tuple[Source, ...]:
    return sources


def _read_about(path: Path, config: DataConfig) -> _About:
    example = '{"channels": ["Fz", "Cz"], "rate": 200, "unit": "uV"}'
    if not path.exists():
        raise InputError(f"{path} is missing. It says what the arrays hold: {example}.")
    known = ", ".join(field.name for field in dataclasses.fields(_About))
    cure = f"It has {known}, names as a list and the rate in Hz: {example}."
    about = read_json(path, _About, cure=cure)
    unit = config.unit or about.unit
    missing = [name for name in ("channels", "rate") if not getattr(about, name)]
    if missing or about.rate <= 0:
        what = f"no {missing[0]}" if missing else f"rate is {about.rate}"
        raise InputError(f"{path}: {what}. {cure}")
    if unit not in (*_MICROVOLTS, "zscore"):
        raise InputError(
            f"{path}: unit is {unit!r}. Write uV, mV, V or zscore, or give --data.unit."
        )
    classes = tuple(str(name).strip() for name in about.classes)
    wrong = [name for name in classes if not name or classes.count(name) > 1]
    if wrong:
        raise InputError(f"{path}: a class is called {wrong[0]!r} or twice so. {cure}")
    return _About(
        channels=canonical_names(about.channels),
        rate=float(about.rate),
        unit=unit,
        classes=classes,
    )


def _read_part(path: Path, root: Path, about: _About) -> _Part:
    if path.suffix == ".npy":
        shape, dtype = (signal := open_npy(path, cure=_CURE)).shape, signal.dtype
        arrays: Mapping[str, Any] = _read_table(path.with_suffix(".csv"))
    else:
        with open_npz(path, cure=_CURE) as file:
            shape, dtype = file.header("signal")
            arrays = {name: file.read(name) for name in COLUMNS if name in file}
    if len(shape) != 3 or not all(shape) or dtype.kind not in "fiu":
        raise InputError(
            f"{path}: signal is {dtype}{list(shape)}. Save numbers of [windows, "
            "channels, samples]."
        )
    if shape[1] != len(about.channels):
        raise InputError(
            f"{path}: {shape[1]} channels, and {root / ABOUT_FILE} names "
            f"{len(about.channels)}. Give one name a channel, in the arrays' order."
        )
    if "label" not in arrays:
        raise InputError(f"{path}: no labels. Add `label`, one per window (-1: none).")
    columns: dict[str, tuple[str, ...]] = {}
    for name, values in arrays.items():
        values = np.asarray(values)
        if name == "label" and values.ndim == 2:
            values = rows_to_texts(path, values, _names(about), root / ABOUT_FILE)
        if values.shape != (shape[0],):
            raise InputError(
                f"{path}: {name} is of shape {list(values.shape)}, and there are "
                f"{shape[0]} windows. Give one value a window."
            )
        columns[name] = (
            to_labels(path, values, _names(about))
            if name == "label"
            else to_texts(path, name, values)
        )
    return _Part(path, shape, columns)


def _names(about: _About) -> tuple[str, ...]:
    return tuple(map(str, about.classes))


def _read_table(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        raise InputError(
            f"{path} is missing. It has one line per window, with the columns "
            f"{', '.join(COLUMNS)}; label is required."
        )
    cure = "Save a table of values between commas, in UTF-8."
    with damage(path, cure), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    unknown = [name for name in reader.fieldnames if name not in COLUMNS]
    if unknown or any(None in row or None in row.values() for row in rows):
        what = (
            f"unknown column {unknown[0]!r}" if unknown else "cells and columns differ"
        )
        raise InputError(f"{path}: {what}. Columns are {', '.join(COLUMNS)}.")
    return {name: [row[name] for row in rows] for name in reader.fieldnames}


@functools.lru_cache(maxsize=1)
def _load_signal(path: Path, changed: int) -> np.ndarray:
    """Loads the windows of a .npz; kept, since its persons are read one by one."""
    with open_npz(path, cure=_CURE) as file:
        return file.read("signal")


def _classes(parts: Sequence[_Part]) -> tuple[str, ...]:
    texts = {x for part in parts for x in part.columns["label"] if x}
    names = {name for text in texts for name in split_label(text)}
    names = {x for x in names if not x.startswith(not_asked(""))}
    numbers = all(_NUMBER.fullmatch(name) for name in names)
    return tuple(sorted(names, key=int if numbers else None))


def _sources(
    root: Path, part: _Part, about: _About, classes: tuple[str, ...], several: bool
) -> list[Source]:
    """Makes one source of each recording of a file, in order of first appearance."""
    num, relative = part.shape[0], part.path.relative_to(root).as_posix()
    blank = ("",) * num
    subject, session, recording = (
        part.columns.get(name, blank) for name in ("subject", "session", "recording")
    )
    read, texts = _labels if several else _label, part.columns["label"]
    labels = [read(part.path, i, text, classes) for i, text in enumerate(texts)]
    rows: dict[tuple[str, str, str], list[int]] = {}
    for i, key in enumerate(zip(subject, session, recording, strict=True)):
        rows.setdefault(key, []).append(i)
    sources = []
    for key, mine in rows.items():
        if "subject" in part.columns and not key[0]:
            raise InputError(
                f"{part.path}: window {mine[0]} has no subject. Name one for every "
                "window, or leave the column out."
            )
        name = ":".join((relative, *filter(None, key)))
        info = {
            **{"channels": about.channels, "rate": about.rate, "unit": about.unit},
            **{"rows": mine, "labels": [labels[i] for i in mine]},
        }
        sources.append(Source(name, part.path, name, key[0] or name, key[1], info))
    return sources


def _labels(path: Path, row: int, text: str, classes: tuple[str, ...]) -> list[str]:
    """Returns the labels of the events that a window of several classes lies in."""
    if not text:
        return [UNLABELLED]
    found, start = [], not_asked("")
    for part in split_label(text):
        name = _label(path, row, part.removeprefix(start), classes)
        found.append(not_asked(name) if part.startswith(start) else name)
    return found


def _label(path: Path, row: int, text: str, classes: tuple[str, ...]) -> str:
    if not text:
        return UNLABELLED
    if text in classes:
        return text
    if _NUMBER.fullmatch(text) and int(text) < len(classes):
        return classes[int(text)]
    raise InputError(
        f"{path}: window {row} has label {text!r}, and the classes are "
        f"{', '.join(classes)}. Correct it, or `classes` in {ABOUT_FILE}."
    )


def read(source: Source) -> Recording:
    """Reads one recording's windows, one after the other; equal labels are one event.

    Raises:
        InputError: If they hold NaN, or amplitudes that their unit makes impossible.
    """
    info, path = source.info, source.path
    if path.suffix == ".npy":
        signal = open_npy(path, cure=_CURE)
    else:
        signal = _load_signal(path, path.stat().st_mtime_ns)
    with np.errstate(over="ignore"):  # What is infinite then is refused below.
        signal = np.asarray(signal[info["rows"]], np.float32)
    n, c, t = signal.shape
    signal = signal.transpose(1, 0, 2).reshape(c, n * t)
    channels, rate = tuple(info["channels"]), info["rate"]
    kinds = channel_kinds(channels, ("eeg",) * c)
    units: list[Unit] = ["zscore"] * c
    if info["unit"] != "zscore":
        units = ["mV" if kind == "ecg" else "uV" for kind in kinds]
        factors = [_MICROVOLTS[info["unit"]] / _MICROVOLTS[unit] for unit in units]
        with np.errstate(over="ignore", invalid="ignore"):
            signal *= np.asarray(factors, np.float32)[:, None]
    check_numbers(path, signal, channels, kinds)
    return Recording(
        signal=signal,
        channels=channels,
        kinds=kinds,
        units=tuple(units),
        rate=rate,
        events=_events(info["labels"], t / rate),
        subject=source.subject,
        session=source.session,
        source=str(path),
    )


def _events(labels: Sequence[str | list[str]], length: float) -> tuple[Event, ...]:
    """Joins neighbouring windows of one label to an event."""
    rows = [[own] if isinstance(own, str) else own for own in labels]
    events = []
    for name in dict.fromkeys(name for row in rows for name in row):
        done = 0
        for inside, group in itertools.groupby(name in row for row in rows):
            num = len(list(group))
            if inside:
                start, stay = done * length, num * length
                events.append(Event(onset_s=start, duration_s=stay, label=name))
            done += num
    return tuple(sorted(events, key=lambda event: event.onset_s))


def _published(parts: Sequence[_Part]) -> dict[str, str]:
    """Returns the part of each person; nothing, if no file has the column."""
    split: dict[str, str] = {}
    for part in parts:
        if "split" not in part.columns:
            continue
        pairs = zip(part.columns["subject"], part.columns["split"], strict=True)
        for row, (person, name) in enumerate(pairs):
            if name not in PARTS or split.setdefault(person, name) != name:
                raise InputError(
                    f"{part.path}: window {row} of {person} is in {name!r} of the "
                    f"split (before: {split.get(person, 'nothing')}). A person is in "
                    f"one of {', '.join(PARTS)}."
                )
    return split


def _fixed_split(
    split: Mapping[str, str], subjects: tuple[str, ...]
) -> Mapping[str, tuple[str, ...]]:
    """Returns the persons of each part.

    Raises:
        InputError: If a part is empty, or a person is in none.
    """
    lost = [person for person in subjects if person not in split]
    parts = {
        name: tuple(person for person in subjects if split.get(person) == name)
        for name in PARTS
    }
    if lost or not all(parts.values()):
        what = f"{lost[0]} is in no part" if lost else "a part is empty"
        raise InputError(
            f"--split fixed: {what} of the column `split`. Use --split kfold."
        )
    return parts
