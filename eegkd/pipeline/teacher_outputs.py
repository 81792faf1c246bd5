"""The outputs of a student's earlier stages: computed into memory, or on disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.cache.config import CacheConfig
from eegkd.cache.external import ExternalOutputs, open_external
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
from eegkd.data.windows.store import WindowStore
from eegkd.host.sealed import format_bytes, hash_arrays, hash_json
from eegkd.host.signals import watch_signals
from eegkd.pipeline.folder import to_json
from eegkd.pipeline.folds import FoldData
from eegkd.pipeline.inference import batch_maker
from eegkd.pipeline.observe import QUIET, Observer
from eegkd.pipeline.teacher_choice import Teacher, cache_forms
from eegkd.systems import System, SystemConfig
from eegkd.train.inputs import teacher_rows, variables_hash
from eegkd.typing import Variables

Outputs = dict[str, dict[str, TeacherTensor]]


def teacher_outputs(
    teacher: Teacher,
    system: System,
    upstream: Mapping[str, Variables],
    data: FoldData,
    config: Any,
    folder: Path,
    *,
    special: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    observer: Observer = QUIET,
) -> Outputs | None:
    """Returns earlier stages' cached outputs, computing them if needed.

    Args:
        teacher: What `choose_teacher` decided.
        system: The system.
        upstream: Variables of the earlier stages that have any.
        data: The fold, whose training windows' outputs are kept.
        config: Options of the run: `cache`, `augment` and those of the system.
        folder: Folder of the cache, unless runs share one.
        special: Outputs computed already, aligned with the store's rows.
        observer: Receiver of progress.

    Returns:
        Stage name -> tensor name -> tensor in the order of the store; None where the
        teacher runs online.

    Raises:
        InputError: If the cache holds other outputs, is damaged or too large.
        Interrupted: On Ctrl-C or SIGTERM; the same call resumes.
    """
    if not teacher.kept:
        return None
    store = data.store
    rows = data.fold.train[np.argsort(store.index["window_id"][data.fold.train])]
    ids = store.index["window_id"][rows]
    external = None
    if teacher.given:
        specs = {name: teacher.specs[name] for name in teacher.given}
        external = open_external(config.cache.given, specs, ids)
    if special is not None:
        produce = _taken(special, rows, list(teacher.specs))
    else:
        produce = _producer(teacher, system, upstream, data, rows, config, external)
    num_views = config.augment.views
    if teacher.mode == "memory":
        plan = make_plan(
            {}, ids, cache_forms(teacher.specs, CacheConfig()), num_views=num_views
        )
        return _in_memory(plan, produce, store)
    fields = _key_fields(system, upstream, data, ids, config, external, special)
    forms = cache_forms(teacher.specs, config.cache)
    plan = make_plan(fields, ids, forms, num_views=num_views)
    if config.cache.folder:
        folder = Path(config.cache.folder).absolute() / key_of(plan.fields)[:16]
    return _on_disk(teacher, plan, produce, store, config, folder, observer)


def _taken(
    special: Mapping[str, Mapping[str, np.ndarray]],
    rows: np.ndarray,
    names: Sequence[str],
) -> Produce:
    """Makes `(places, views) -> arrays` from outputs computed already."""

    def produce(places: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        del views  # Windows are shown unchanged.
        parts = (name.partition(".") for name in names)
        return {
            name: special[stage][key][rows[places]]
            for name, (stage, _, key) in zip(names, parts, strict=True)
        }

    return produce


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
    observer: Observer,
) -> Outputs:
    options = config.cache
    whole = (folder / MANIFEST).is_file() and read_manifest(folder)["complete"]
    if not whole:
        free = check_room(folder, 0, total=plan.bytes, limit_gb=options.limit_gb)
        observer.say(describe_plan(plan, measure_speed(folder), free))
    else:
        observer.say(f"Checking the teacher cache {folder} ({options.verify}) ...")
    with (
        observer.bar("teacher cache", plan.layout.num_rows) as progress,
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
        observer.say(
            f"Teacher cache {folder}: {format_bytes(cache.bytes)} verified at "
            f"{cache.read_speed / 1e6:.0f} MB/s."
        )
    for name, form in plan.forms.items():
        error = cache.errors[name]["relative_rms"]
        observer.say(f"{name} as {form.describe()}: relative RMS error {error:.2g}.")
    return cache.tensors(store.index["window_id"])


def _producer(
    teacher: Teacher,
    system: System,
    upstream: Mapping[str, Variables],
    data: FoldData,
    rows: np.ndarray,
    config: RunConfig,
    external: ExternalOutputs | None,
) -> Produce:
    """Makes `(places, views) -> arrays` from this run's stages and external outputs."""
    own = [name for name in teacher.specs if name not in teacher.given]
    maker = batch_maker(
        system,
        data.store,
        stages=[stage.name for stage in system.stages[:-1]],
        zscore=data.zscore,
        augment=config.augment,
    )
    run = teacher_rows(system, system.stages[-1].name, own, upstream) if own else None

    def produce(places: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        found = run(maker(rows[places], views)) if run else {}
        return found | (external.produce(places, views) if external else {})

    return produce


def _key_fields(
    system: System,
    upstream: Mapping[str, Variables],
    data: FoldData,
    ids: np.ndarray,
    config: Any,
    external: ExternalOutputs | None,
    special: Mapping[str, Mapping[str, np.ndarray]] | None,
) -> dict[str, Any]:
    """Returns everything that the outputs depend on, by names that users know."""
    of_run, of_both = (
        {field.name for field in dataclasses.fields(cls)}
        for cls in (RunConfig, SystemConfig)
    )
    # The student's options reach its teacher's outputs through nothing, or through the
    # teacher's variables, which are hashed.
    skip = (of_run - of_both).union(type(config).student_options)
    skip |= {"student_channels", system.stages[-1].name}
    options = {k: v for k, v in to_json(config).items() if k not in skip}
    if not options["signal"]["multilabel"]:
        del options["signal"]["multilabel"]  # Keys of caches that were filled before.
    store, zscore = data.store, data.zscore
    manifest, files = store.manifest, store.manifest["files"]
    signal = files.get("signal.npy", {}).get("sha256") or hash_arrays(store.signal)
    view: Any = "none"
    if config.augment.active:
        view = to_json(config.augment)
        del view["num_views"]  # A field of its own.
    fields = {
        "teacher": variables_hash(upstream),
        "given": external.hashes() if external else "none",
        "system": {"name": system.name, **options},
        "preprocessing": manifest["preprocessing_hash"],
        "sources": hash_json(manifest["sources"]),
        "signal": signal,
        "windows": hash_arrays(ids),
        "zscore": "none" if zscore is None else hash_arrays(*zscore),
        "augment": view,
    }
    if special is not None:
        # Of recordings or of parts: only their outputs are known here.
        arrays = [special[s][name] for s in sorted(special) for name in special[s]]
        fields["outputs"] = hash_arrays(*arrays)
    return fields
