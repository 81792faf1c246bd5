"""From a corpus on disk to a window store: parallel, resumable, atomic.

Every recording becomes one part in `<out>.partial`; a stopped or killed run is resumed
by running it again. The parts are then streamed into the store in the order of the
corpus, so its bytes depend neither on the number of workers nor on interruptions.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source, folder_of, get_corpus
from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import Windows, resolve_config, window_recording
from eegkd.data.windows.marks import MARKS, marks_of, or_filled
from eegkd.data.windows.origins import (
    describe_source,
    hash_of,
    name_below,
    part_name,
    size_of,
)
from eegkd.data.windows.recorded import recorded_file, recorded_json
from eegkd.data.windows.store import WindowStore, write_store
from eegkd.errors import InputError, output_errors
from eegkd.host.arrays import open_npy
from eegkd.host.atomic import remove_own, sole_writer, sync
from eegkd.host.json_file import read_json
from eegkd.host.sealed import hash_json

PART_VERSION = 1
"""Version of the parts: raised when reading, preprocessing or cutting changes."""

_CURE = "Delete this file, and run the same command again."
_PART = re.compile(r".+\.[0-9a-f]{16}\.(json|npy)(\.\d+\.tmp)?")


class PreparePlan(NamedTuple):
    """Work to be done, known before any signal is read."""

    config: DataConfig
    corpus: Corpus
    sources: tuple[Source, ...]
    settings: Mapping[str, Any]
    hash: str


class Estimate(NamedTuple):
    """Cost of preparing; the disk holds twice `num_bytes` while it runs."""

    num_recordings: int
    num_bytes: int
    seconds: float


def make_plan(config: DataConfig) -> PreparePlan:
    """Lists the recordings of a corpus and settles their preprocessing.

    Raises:
        InputError: If the corpus is unknown or has no recordings.
    """
    options = dataclasses.asdict(config)
    name, root = options.pop("corpus"), options.pop("root")
    corpus = get_corpus(name, root, **options)
    if corpus.needs_root:
        folder_of(root, corpus.name)
    config = resolve_config(config, corpus)
    sources = corpus.list_sources(Path(root))
    if not sources:
        raise InputError(f"--data.root {root}: no {corpus.name} recordings.")
    settings = dataclasses.asdict(config)
    # Options that make other corpora. `unit` stays, or every store's hash changes.
    unused = {"world", "seed", "subject_from"} - set(corpus.options)
    # Only where they are given, or the hash of every store changes.
    unused |= {x for x in ("layout", "subject_from") if getattr(config, x) is None}
    for field in ("root", "workers", "corpus", *unused):
        del settings[field]
    if config.montage == "average":  # Only then, or the hash of every store changes.
        settings["average_of"] = "scalp"
    for field in {"label", "classes", "entities", "trials"} - set(corpus.options):
        del settings[field]
    settings = json.loads(json.dumps(settings | {"part_version": PART_VERSION}))
    request = [settings, corpus.name, corpus.classes, corpus.background]
    if corpus.multilabel:
        _check_multilabel(corpus)
        request.append({"multilabel": True})
    if corpus.task:  # Only then, or the hash of every store changes.
        request.append(dict(corpus.task))
    files = [describe_source(source, Path(root)) for source in sources]
    return PreparePlan(config, corpus, sources, settings, hash_json([request, files]))


def prepare(
    config: DataConfig, out: str | os.PathLike[str], *, progress: bool = True
) -> WindowStore:
    """Writes the window store of a corpus, or opens it if it exists.

    Recordings are read by `joblib.Parallel`, so `joblib.parallel_config` sends them to
    a dask or ray cluster that shares the file system.

    Raises:
        InputError: If a recording is bad, or `out` holds another store, is read-only
            or full, or another process is preparing it.
    """
    plan = make_plan(config)
    folder = Path(out).absolute()
    parts = folder.with_name(folder.name + ".partial")
    if (folder / "manifest.json").exists():
        return _reuse(folder, plan)
    try:
        with sole_writer(parts):
            # Another process may have finished it just now.
            if (folder / "manifest.json").exists():
                return _reuse(folder, plan)
            store = _fill(plan, parts, folder, progress)
            remove_own(parts, _PART.fullmatch)
            return store
    finally:
        with contextlib.suppress(OSError):  # Parts for the next time are in it.
            parts.rmdir()


def _fill(plan: PreparePlan, parts: Path, folder: Path, progress: bool) -> WindowStore:
    """Writes the parts that are missing, and joins them."""
    files = [parts / part_name(source, plan.settings) for source in plan.sources]
    pending = [
        i
        for i, file in enumerate(files)
        if not (file.exists() and file.with_suffix(".npy").exists())
    ]
    bar = Progress(
        "Reading recordings", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        disable=not progress, transient=True,
    )  # fmt: skip
    run = joblib.Parallel(
        n_jobs=min(plan.config.workers or -1, len(pending) or 1),
        return_as="generator_unordered",
    )
    # A task takes one source: the others would be sent to a process with each.
    corpus = plan.corpus._replace(list_sources=_no_sources)
    here = os.getcwd()
    tasks = (
        joblib.delayed(_make_part)(here, plan.sources[i], corpus, plan.config, files[i])
        for i in pending
    )
    with bar:
        task = bar.add_task("", total=len(files), completed=len(files) - len(pending))
        for _ in run(tasks):
            bar.advance(task)
    return _join(plan, files, folder)


def _no_sources(root: Path) -> tuple[Source, ...]:
    return ()


def estimate(config: DataConfig) -> Estimate:
    """Measures one recording of middle size and scales it to the corpus."""
    plan = make_plan(config)
    sharing = [source.path for source in plan.sources]
    shares = Counter(sharing)
    sizes = [size_of(path) / shares[path] for path in sharing]
    order = np.argsort(sizes, kind="stable")
    middle = int(order[len(sizes) // 2])
    seconds, num_bytes = 0.0, 0
    # The first one also pays for imports and filter design.
    for i in (int(order[0]), middle):
        start = time.perf_counter()
        windows, _ = _cut(plan.sources[i], plan.corpus, plan.config)
        num_bytes = windows.signal.nbytes
        seconds = time.perf_counter() - start
    scale = sum(sizes) / max(sizes[middle], 1)
    workers = plan.config.workers or os.cpu_count() or 1
    return Estimate(
        len(plan.sources), int(num_bytes * scale), seconds * scale / workers
    )


def _make_part(
    folder: str, source: Source, corpus: Corpus, config: DataConfig, file: Path
) -> None:
    """Writes the part of one recording, whose path may be relative to a folder."""
    # A worker that joblib uses again is still where its first task was given.
    if os.getcwd() != folder:
        os.chdir(folder)
    make_part(source, corpus, config, file)


def make_part(source: Source, corpus: Corpus, config: DataConfig, file: Path) -> None:
    """Writes the part of one recording: windows, then, when they are whole, the rest.

    Raises:
        InputError: If the recording is bad or the part cannot be written.
    """
    windows, recording = _cut(source, corpus, config)
    info: dict[str, Any] = {
        "channels": recording.channels,
        "units": recording.units,
        "rate": recording.rate,
        "duration_s": recording.duration_s,
        "events": [dataclasses.asdict(event) for event in recording.events],
        "filled_channels": recording.filled,
        "reference": recording.reference,
        "start_s": windows.start_s.tolist(),
        "label": windows.label.tolist(),
        "on_grid": windows.on_grid.tolist(),
        "origin": recorded_json(recording, windows),
    }
    info |= marks_of(recording, windows)
    if not source.member:
        info["sha256"] = hash_of(source.path)
    with output_errors(file.parent):
        _replace(file.with_suffix(".npy"), lambda temp: _save(temp, windows.signal))
        _replace(file, lambda temp: temp.write_text(json.dumps(info)))


def _cut(
    source: Source, corpus: Corpus, config: DataConfig
) -> tuple[Windows, Recording]:
    return window_recording(
        corpus.read(source),
        config,
        classes=corpus.classes,
        background=corpus.background,
        trials=corpus.trials,
        multilabel=corpus.multilabel,
    )


def _check_multilabel(corpus: Corpus) -> None:
    """Refuses a background class, which no row of several labels needs."""
    if corpus.background is not None:
        raise InputError(
            f"The corpus {corpus.name} gives a window several classes, and names the "
            f"background {corpus.background!r}: a window of none is a row of zeros. "
            "Leave `background` None."
        )


def _join(plan: PreparePlan, files: Sequence[Path], folder: Path) -> WindowStore:
    """Streams the parts into one store, in the order of the corpus."""
    infos = [read_json(file, dict, cure=_CURE, strict=False) for file in files]
    for name in ("channels", "units", "rate"):
        for source, info in zip(plan.sources, infos, strict=True):
            if info[name] != infos[0][name]:
                raise InputError(
                    f"{source.path}: {name} {info[name]}, but "
                    f"{plan.sources[0].path} has {infos[0][name]}. Set "
                    f"--data.{'rate' if name == 'rate' else 'channels'} to what all "
                    f"recordings share{or_filled(infos) if name == 'channels' else ''}."
                )
    counts = [len(info["start_s"]) for info in infos]
    index = {
        name: _repeat([getattr(source, name) for source in plan.sources], counts)
        for name in ("recording_id", "subject", "session")
    } | {
        name: np.concatenate([info[name] for info in infos])
        for name in ("start_s", "label", "on_grid")
    }
    blocks = (open_npy(file.with_suffix(".npy"), cure=_CURE) for file in files)
    beside = recorded_file([info.get("origin") for info in infos])
    return write_store(folder, blocks, index, _manifest(plan, infos), beside)


def _manifest(plan: PreparePlan, infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    corpus, config = plan.corpus, plan.config
    manifest: dict[str, Any] = {
        "corpus": corpus.name,
        "classes": corpus.classes,
        "background": corpus.background,
        "channels": infos[0]["channels"],
        "units": infos[0]["units"],
        "rate": infos[0]["rate"],
        "window_s": config.window_s,
        "overlap": config.overlap,
        "has_subjects": corpus.has_subjects,
        "licence": corpus.licence,
        "preprocessing": plan.settings,
        "request": plan.hash,
        "sources": _source_hashes(plan, infos),
        "recordings": {
            source.recording_id: {
                "subject": source.subject,
                "session": source.session,
                "duration_s": info["duration_s"],
                "events": info["events"],
                "filled_channels": info["filled_channels"],
                **{name: info[name] for name in MARKS if name in info},
            }
            for source, info in zip(plan.sources, infos, strict=True)
        },
    }
    if corpus.fixed_split is not None:
        subjects = tuple(dict.fromkeys(source.subject for source in plan.sources))
        try:
            manifest["split"] = corpus.fixed_split(subjects)
        except InputError as error:
            # A part of a corpus can be prepared; only --split fixed needs all of it.
            manifest["split"] = {"error": str(error)}
    if corpus.student_subjects:
        manifest["student_subjects"] = corpus.student_subjects
    if config.montage == "average":
        averaged = [info["reference"] for info in infos]
        manifest["reference"] = list(dict.fromkeys(itertools.chain(*averaged)))
        records = manifest["recordings"].values()
        for record, names in zip(records, averaged, strict=True):
            lacking = [name for name in manifest["reference"] if name not in names]
            record["not_in_reference"] = lacking
    if corpus.task:
        manifest["task"] = corpus.task
    if corpus.notes:
        manifest["notes"] = corpus.notes
    if corpus.facts is not None:
        manifest |= corpus.facts()
    return manifest


def _source_hashes(
    plan: PreparePlan, infos: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Hashes every source file; an archive once for all its members."""
    hashes: dict[str, str] = {}
    for source, info in zip(plan.sources, infos, strict=True):
        name = name_below(source.path, Path(plan.config.root))
        if name not in hashes:
            hashes[name] = info.get("sha256") or hash_of(source.path)
    return hashes


def _reuse(folder: Path, plan: PreparePlan) -> WindowStore:
    """Opens a finished store if it has the wanted contents."""
    store = WindowStore.open(folder)
    if store.manifest.get("request") == plan.hash:
        return store
    have = {"corpus": store.manifest["corpus"], **store.manifest["preprocessing"]}
    want = {"corpus": plan.corpus.name, **plan.settings}
    for name in want:
        if have.get(name) != want[name]:
            raise InputError(
                f"{folder} holds a store with {name}={have.get(name)}, not "
                f"{want[name]}. Choose another --out, or delete the folder."
            )
    if not plan.corpus.needs_root:  # its source is the program that draws it
        raise InputError(
            f"{folder} was made by another version of {plan.sources[0].path}. Choose "
            "another --out, or go on with the version of eegkd that made it."
        )
    raise InputError(
        f"{folder} was made from other recordings or labels than those now in "
        f"{plan.config.root}. Choose another --out, or delete the folder."
    )


def _repeat(names: Sequence[str], counts: Sequence[int]) -> np.ndarray:
    return np.repeat(np.asarray(names, str), counts)


def _save(path: Path, signal: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, signal)


def _replace(path: Path, write: Any) -> None:
    """Writes a temporary file and renames it, so that `path` is never half written."""
    temp = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temp)
        sync(temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
