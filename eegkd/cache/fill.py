"""Fills a teacher cache shard by shard, resumably."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.cache.files import (
    MANIFEST,
    VERSION,
    WINDOWS,
    Layout,
    Speed,
    basis_file,
    check_fields,
    damaged_files,
    layout_of,
    num_bytes,
    read_basis,
    read_manifest,
    shard_file,
    shard_files,
    write_array,
    write_basis,
    write_manifest,
)
from eegkd.cache.forms import (
    Basis,
    TensorForm,
    encode,
    fit_basis,
    form_json,
    pooled,
    stated_error,
)
from eegkd.cache.read import TeacherCache
from eegkd.errors import InputError, Interrupted
from eegkd.host.atomic import remove_parts, sole_writer
from eegkd.host.sealed import Verify, format_bytes

Produce = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""`(places i64[b], views i64[b]) -> tensor name -> [b, ...]`; place i is the window of
the i-th smallest id."""

BATCH = 256
_SHARD_BYTES = 64 << 20
_SHARD_ROWS = 4096
_SAMPLE_BYTES = 256 << 20
_SAMPLE_ROWS = 512
_SPARE_BYTES = 16 << 20
_logger = logging.getLogger(__name__)


class CachePlan(NamedTuple):
    """Contents of a cache.

    Attributes:
        fields: Everything its numbers depend on, by name; "form" among them.
        window_ids: `i64[m]`, ascending.
        layout: Division of rows into shards.
        forms: Storage form of each tensor.
    """

    fields: Mapping[str, Any]
    window_ids: np.ndarray
    layout: Layout
    forms: Mapping[str, TensorForm]

    @property
    def window_bytes(self) -> int:
        """Size of all views of one window on disk."""
        return self.layout.num_views * sum(form.bytes for form in self.forms.values())

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return self.layout.num_windows * self.window_bytes


def make_plan(
    fields: Mapping[str, Any],
    window_ids: np.ndarray,
    forms: Mapping[str, TensorForm],
    *,
    num_views: int = 1,
    shard_rows: int | None = None,
) -> CachePlan:
    """Makes a plan from contents and layout.

    Args:
        fields: Origin of the outputs, by name.
        window_ids: `i64[m]`, ascending and distinct.
        forms: Storage form of each tensor.
        num_views: Views of each window.
        shard_rows: Rows per shard; None: 64 MiB of the largest tensor, 4,096 at most.

    Raises:
        ValueError: If the ids are not ascending, or there is nothing to store.
    """
    ids = np.asarray(window_ids, np.int64)
    if not len(ids) or (np.diff(ids) <= 0).any() or not forms:
        raise ValueError("A cache needs tensors, and distinct ascending window ids.")
    if shard_rows is None:
        largest = max(form.bytes for form in forms.values())
        shard_rows = max(1, min(_SHARD_ROWS, _SHARD_BYTES // largest))
        # Whole batches of the teacher: the last one of a shard is padded.
        shard_rows -= shard_rows % BATCH if shard_rows > BATCH else 0
    whole = {
        **fields,
        "form": {name: form_json(form) for name, form in forms.items()},
        "num_views": num_views,
    }
    return CachePlan(whole, ids, Layout(len(ids), num_views, shard_rows), dict(forms))


def describe_plan(plan: CachePlan, speed: Speed, free: int) -> str:
    """Formats the size of a cache, and the speed of its disk."""
    forms = "; ".join(f"{name} as {f.describe()}" for name, f in plan.forms.items())
    views = plan.layout.num_views
    of_views = f" of {views} views" if views > 1 else ""
    seconds = plan.bytes / speed.write
    return (
        f"Teacher cache: {forms}. {format_bytes(plan.window_bytes)} a window"
        f"{of_views}, {plan.layout.num_windows:,} windows: "
        f"{format_bytes(plan.bytes)}, about {seconds:.0f} s of writing; "
        f"{format_bytes(free)} free on its disk, which writes "
        f"{speed.write / 1e6:.0f} MB/s and reads {speed.read / 1e6:.0f} MB/s."
    )


def check_room(folder: Path, need: int, *, total: int, limit_gb: float) -> int:
    """Refuses a cache that exceeds the limit or the disk; returns the free bytes.

    Raises:
        InputError: Naming both sizes and the cure.
    """
    cure = (
        "Store less (--cache.form int8, --cache.pool, --cache.rank, "
        "--augment.num_views), or run the teacher online (--train.teacher online)"
    )
    if total > limit_gb * 1e9:
        raise InputError(
            f"The teacher cache takes {format_bytes(total)}, more than "
            f"--cache.limit_gb {limit_gb:g}. {cure}, or raise the limit."
        )
    free = free_bytes(folder)
    if need and need + _SPARE_BYTES > free:
        raise InputError(
            f"The teacher cache needs {format_bytes(need)} more in {folder}, and "
            f"{format_bytes(free)} are free. {cure}, or choose another --cache.folder."
        )
    return free


def free_bytes(folder: Path) -> int:
    """Returns the free bytes on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fill_cache(
    folder: str | Path,
    plan: CachePlan,
    produce: Produce,
    *,
    limit_gb: float = 1e9,
    verify: Verify = "sha256",
    refill: bool = True,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TeacherCache:
    """Fills the missing shards of a cache, and returns it checked.

    Every shard is written atomically and the manifest after it, so a killed fill
    resumes at its shard, to the same bytes: a shard's batches do not depend on where
    the fill was stopped.

    Args:
        folder: Folder of the cache.
        plan: Contents of the cache.
        produce: Function that makes the rows.
        limit_gb: Refuse a larger cache.
        verify: How existing files are checked.
        refill: True to make damaged shards again, with a warning; else refuse them.
        progress: Receives the number of rows done.
        stop: Called after every shard; True stops.

    Raises:
        InputError: If the folder holds another cache or is full, or an output is not
            finite or has another shape.
        Interrupted: If it was stopped; the message says how to resume.
    """
    folder = Path(folder).absolute()
    begun = (folder / MANIFEST).is_file()
    if begun:
        whole = _whole(folder, plan, verify)
        if whole is not None:
            return whole
    with sole_writer(folder):
        remove_parts(folder)
        manifest, speed = _reuse(folder, plan, verify, refill) if begun else (None, 0.0)
        have = 0 if manifest is None else num_bytes(manifest["files"])
        need = max(0, plan.bytes - have)
        check_room(folder, need, total=plan.bytes, limit_gb=limit_gb)
        if manifest is None:
            manifest = _start(folder, plan, produce)
        _fill_shards(folder, plan, manifest, produce, progress, stop)
        if not manifest["complete"]:
            manifest["complete"] = True
            write_manifest(folder, manifest)
    return TeacherCache(folder, manifest, speed)


def _whole(folder: Path, plan: CachePlan, verify: Verify) -> TeacherCache | None:
    """Opens a finished cache, which runs may share; None where work is left."""
    manifest = read_manifest(folder)
    check_fields(folder, manifest["fields"], plan.fields)
    if not manifest["complete"]:
        return None
    bad, speed = damaged_files(folder, manifest["files"], verify)
    return None if bad else TeacherCache(folder, manifest, speed)


def _reuse(
    folder: Path, plan: CachePlan, verify: Verify, refill: bool
) -> tuple[dict[str, Any] | None, float]:
    """Reads the existing shards, without those that must be made again."""
    manifest = read_manifest(folder)
    bad, speed = damaged_files(folder, manifest["files"], verify)
    for name, what in bad.items():
        if not refill:
            raise InputError(
                f"The teacher cache {folder}: {name} {what}. Delete the folder to "
                "fill it anew."
            )
        _logger.warning("Teacher cache %s: %s %s; filling again.", folder, name, what)
    bases = {basis_file(name) for name in plan.forms}
    if bad.keys() & {WINDOWS, *bases}:
        _logger.warning("Teacher cache %s is filled anew as a whole.", folder)
        (folder / MANIFEST).unlink()
        return None, 0.0
    if bad:
        manifest["complete"] = False
    for name in bad:
        del manifest["files"][name]
    return manifest, speed


def _start(folder: Path, plan: CachePlan, produce: Produce) -> dict[str, Any]:
    """Writes the ids and the axes, and measures every form on a sample."""
    layout = plan.layout
    files = {WINDOWS: write_array(folder / WINDOWS, plan.window_ids)}
    row_bytes = sum(
        np.dtype(np.float32).itemsize * int(np.prod(form.shape))
        for form in plan.forms.values()
    )
    num = min(layout.num_rows, _SAMPLE_ROWS, max(8, _SAMPLE_BYTES // max(row_bytes, 1)))
    rows = np.unique(np.linspace(0, layout.num_rows - 1, num).astype(np.int64))
    sample = produce_rows(plan, rows, produce)
    errors = {}
    for name, form in plan.forms.items():
        values, basis = sample[name], None
        if form.rank:
            # Fitted on one half and judged on the other.
            basis = fit_basis(pooled(values[::2], form), form.rank)
            values = values[1::2] if len(values) > 1 else values
            entry = write_basis(folder / basis_file(name), basis)
            files[basis_file(name)] = entry
        errors[name] = stated_error(values, form, basis)
    manifest = {
        "version": VERSION,
        "complete": False,
        "fields": plan.fields,
        "layout": layout._asdict(),
        "errors": errors,
        "files": files,
    }
    write_manifest(folder, manifest)
    return manifest


def _fill_shards(
    folder: Path,
    plan: CachePlan,
    manifest: dict[str, Any],
    produce: Produce,
    progress: Callable[[int], None] | None,
    stop: Callable[[], bool] | None,
) -> None:
    layout, files = layout_of(manifest), manifest["files"]
    plan = plan._replace(layout=layout)
    bases = {
        name: read_basis(folder / basis_file(name)) if form.rank else None
        for name, form in plan.forms.items()
    }
    missing = set(shard_files(layout, plan.forms)) - files.keys()
    done = 0
    for shard in range(layout.num_shards):
        rows = layout.rows(shard)
        if missing & {
            shard_file(name, suffix, shard)
            for name, form in plan.forms.items()
            for suffix in form.parts
        }:
            values = produce_rows(plan, rows, produce)
            files.update(_write_shard(folder, plan, bases, shard, values))
            write_manifest(folder, manifest)
        done += len(rows)
        if progress is not None:
            progress(done)
        if done < layout.num_rows and stop is not None and stop():
            raise Interrupted(
                f"Stopped at row {done} of {layout.num_rows} of the teacher cache "
                f"{folder}. Run the same command again to resume."
            )


def _write_shard(
    folder: Path,
    plan: CachePlan,
    bases: Mapping[str, Basis | None],
    shard: int,
    values: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    entries = {}
    for name, form in plan.forms.items():
        parts = encode(values[name], form, bases[name])
        for suffix, array in parts.items():
            file = shard_file(name, suffix, shard)
            entries[file] = write_array(folder / file, array)
    return entries


def produce_rows(
    plan: CachePlan, rows: np.ndarray, produce: Produce
) -> dict[str, np.ndarray]:
    """Makes rows in full batches of one shape; the last one repeats its last row.

    Raises:
        InputError: If an output is not finite, or has another shape.
    """
    layout = plan.layout
    size = min(BATCH, layout.shard_rows, layout.num_rows)
    found: dict[str, list[np.ndarray]] = {name: [] for name in plan.forms}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
        places, views = np.divmod(padded, layout.num_views)
        made = produce(places, views)
        for name, form in plan.forms.items():
            values = np.asarray(made[name])
            if values.shape != (size, *form.shape):
                shape = list(values.shape[1:])
                raise InputError(
                    f"{name} has shape {shape} a window, not {list(form.shape)}."
                )
            values = values[: len(part)]
            _check_finite(name, values, plan.window_ids[places])
            found[name].append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def _check_finite(name: str, values: np.ndarray, ids: np.ndarray) -> None:
    flat = np.asarray(values, np.float32).reshape(len(values), -1)
    good = np.isfinite(flat).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(
            f"{name} is NaN or infinite for window_id {ids[row]}: check the teacher, "
            "or leave the window out."
        )
