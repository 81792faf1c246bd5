"""The outputs of a student's earlier stages: computed into memory, or on disk."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.cache.config import CacheConfig
from eegkd.cache.external import Given, open_given
from eegkd.cache.files import MANIFEST, key_of, measure_speed, read_manifest
from eegkd.cache.fill import (
    CachePlan,
    Produce,
    check_room,
    describe_plan,
    fill_cache,
    make_plan,
    produce_rows,
)
from eegkd.cache.read import TeacherTensor, match_windows
from eegkd.config import RunConfig
from eegkd.data.batches.maker import BatchMaker, BatchPlan, ZScore
from eegkd.data.windows.store import WindowStore
from eegkd.host.sealed import format_bytes, hash_arrays, hash_json
from eegkd.host.signals import watch_signals
from eegkd.pipeline.folder import to_json
from eegkd.pipeline.inference import prepare_fn
from eegkd.pipeline.teacher_choice import Teacher, cache_forms
from eegkd.systems import System, SystemConfig
from eegkd.train.inputs import teacher_rows, variables_hash
from eegkd.typing import Variables

# These reach a teacher's outputs through its variables alone, which are hashed.
_NOT_THE_TEACHERS = ("student", "student_channels", "loss", "kd", "router", "spec")
Outputs = dict[str, dict[str, TeacherTensor]]
_logger = logging.getLogger(__name__)


class Watch(NamedTuple):
    """Where a long fill is shown.

    Attributes:
        say: Takes a line.
        bar: `(what, rows) -> context` in which its value takes the rows done.
    """

    say: Callable[[str], None]
    bar: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


QUIET = Watch(
    _logger.info, lambda what, rows: contextlib.nullcontext(lambda done: None)
)


def teacher_outputs(
    teacher: Teacher,
    system: System,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    config: RunConfig,
    folder: Path,
    *,
    zscore: ZScore | None = None,
    watch: Watch = QUIET,
) -> Outputs | None:
    """Computes what is kept of the earlier stages, or opens it where it is.

    Args:
        teacher: Of `choose_teacher`.
        system: Whose stages.
        upstream: Their variables; of stages that are given, none.
        store: Windows.
        rows: Those that outputs are kept of.
        config: The run's: `cache`, `augment` and the system's own options.
        folder: Of the cache, unless runs share one.
        zscore: Of the training subjects, if the store asks for it.
        watch: Where a fill is shown.

    Returns:
        Stage name -> tensor name -> tensor in the order of the store; None where the
        teacher runs online.

    Raises:
        InputError: If the cache is of something else, damaged or too large.
        Interrupted: On Ctrl-C or SIGTERM; the same call resumes.
    """
    if not teacher.kept:
        return None
    rows = rows[np.argsort(store.index["window_id"][rows])]
    ids = store.index["window_id"][rows]
    given = None
    if teacher.given:
        specs = {name: teacher.specs[name] for name in teacher.given}
        given = open_given(config.cache.given, specs, ids)
    produce = _producer(teacher, system, upstream, store, rows, config, zscore, given)
    num_views = config.augment.views
    if teacher.mode == "memory":
        plan = make_plan(
            {}, ids, cache_forms(teacher.specs, CacheConfig()), num_views=num_views
        )
        return _in_memory(plan, produce, store)
    fields = _identity(teacher, system, upstream, store, ids, config, zscore, given)
    forms = cache_forms(teacher.specs, config.cache)
    plan = make_plan(fields, ids, forms, num_views=num_views)
    if config.cache.folder:
        folder = Path(config.cache.folder).absolute() / key_of(plan.fields)[:16]
    return _on_disk(teacher, plan, produce, store, config, folder, watch)


def _in_memory(plan: CachePlan, produce: Produce, store: WindowStore) -> Outputs:
    index = match_windows(store.index["window_id"], plan.window_ids)
    values = produce_rows(plan, np.arange(plan.layout.num_rows), produce)
    found: Outputs = {}
    for name, array in values.items():
        stage, _, key = name.partition(".")
        tensor = TeacherTensor(array, index, plan.layout.num_views)
        found.setdefault(stage, {})[key] = tensor
    return found


def _on_disk(
    teacher: Teacher,
    plan: CachePlan,
    produce: Produce,
    store: WindowStore,
    config: RunConfig,
    folder: Path,
    watch: Watch,
) -> Outputs:
    options = config.cache
    whole = (folder / MANIFEST).is_file() and read_manifest(folder)["complete"]
    if not whole:
        free = check_room(folder, 0, total=plan.bytes, limit_gb=options.limit_gb)
        watch.say(describe_plan(plan, measure_speed(folder), free))
    else:
        watch.say(f"Checking the teacher cache {folder} ({options.verify}) ...")
    with (
        watch.bar("teacher cache", plan.layout.num_rows) as progress,
        watch_signals() as signalled,
    ):
        cache = fill_cache(
            folder,
            plan,
            produce,
            limit_gb=options.limit_gb,
            verify=options.verify,
            refill=not teacher.given,
            progress=progress,
            stop=signalled,
        )
    if cache.read_speed:
        watch.say(
            f"Teacher cache {folder}: {format_bytes(cache.bytes)} verified at "
            f"{cache.read_speed / 1e6:.0f} MB/s."
        )
    for name, form in plan.forms.items():
        error = cache.errors[name]["relative_rms"]
        watch.say(f"{name} as {form.describe()}: relative RMS error {error:.2g}.")
    return cache.tensors(store.index["window_id"])


def _producer(
    teacher: Teacher,
    system: System,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    config: RunConfig,
    zscore: ZScore | None,
    given: Given | None,
) -> Produce:
    """Makes `(places, views) -> arrays` of this run's stages and of what is given."""
    own = [name for name in teacher.specs if name not in teacher.given]
    plan = BatchPlan(prepare=prepare_fn(system), zscore=zscore, augment=config.augment)
    maker = BatchMaker(store=store, plan=plan)
    run = teacher_rows(system, system.stages[-1].name, own, upstream) if own else None

    def produce(places: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        found = run(maker(rows[places], views)) if run else {}
        return found | (given.produce(places, views) if given else {})

    return produce


def _identity(
    teacher: Teacher,
    system: System,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    ids: np.ndarray,
    config: RunConfig,
    zscore: ZScore | None,
    given: Given | None,
) -> dict[str, Any]:
    """Lists everything that the outputs depend on, by the name a user knows it by."""
    of_run, of_both = (
        {field.name for field in dataclasses.fields(cls)}
        for cls in (RunConfig, SystemConfig)
    )
    skip = (of_run - of_both).union(_NOT_THE_TEACHERS, [system.stages[-1].name])
    options = {k: v for k, v in to_json(config).items() if k not in skip}
    manifest, files = store.manifest, store.manifest["files"]
    signal = files.get("signal.npy", {}).get("sha256") or hash_arrays(store.signal)
    view: Any = "none"
    if config.augment.active:
        view = to_json(config.augment)
        del view["num_views"]  # A field of its own.
    return {
        "teacher": variables_hash(upstream),
        "given": given.hashes() if given else "none",
        "system": {"name": system.name, **options},
        "preprocessing": manifest["preprocessing_hash"],
        "sources": hash_json(manifest["sources"]),
        "signal": signal,
        "windows": hash_arrays(ids),
        "zscore": "none" if zscore is None else hash_arrays(*zscore),
        "augment": view,
    }
