"""A run's model as files for other runtimes, each behind a gate, with a card."""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.config import RunConfig
from eegkd.data.batches.maker import ZScore
from eegkd.data.windows.store import WindowStore
from eegkd.deploy import onnx_file, stablehlo
from eegkd.deploy.audit import audit_graph
from eegkd.deploy.card import Card, ModelFile, make_card, render_card
from eegkd.deploy.graph import Graph, make_graph
from eegkd.deploy.latency import Latency, measure_latency
from eegkd.deploy.load import load_model, open_store
from eegkd.deploy.parity import check_parity, reference
from eegkd.errors import InputError, output_errors
from eegkd.host.atomic import remove_own, sync_tree, write_atomic
from eegkd.host.process import num_cores
from eegkd.host.sealed import hash_file
from eegkd.pipeline.finished import WEIGHTS, check_results, is_finished
from eegkd.pipeline.folder import write_json
from eegkd.pipeline.norms import NORMS, write_norms
from eegkd.systems import System
from eegkd.train.weights import load_variables, named_arrays, save_variables
from eegkd.typing import Array

FILES = {
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
}
CARD, VALUES = "README.md", "card.json"
_OWN = (*FILES.values(), CARD, VALUES, NORMS)
RUNTIMES = {"stablehlo": "jax", "onnx": "onnxruntime"}
NUM_WINDOWS = 32


def export_model(
    make_system: Callable[[Any], System],
    config: RunConfig,
    out: Path,
    *,
    row: str = "student",
    formats: Sequence[str] = tuple(FILES),
    weights: Mapping[str, str] | None = None,
    runs: int = 500,
) -> Card:
    """Writes a model of a finished run: fold 0, seed 0; all files or none.

    Args:
        make_system: `config -> System` of the run.
        config: Options of the run, without those that only training reads
            (`Entry.deployed`); `config.out` is its folder.
        out: Folder to write; an earlier export is replaced.
        row: Row of the model: "student", "teacher", or a control of its structure.
        formats: Keys of `FILES`.
        weights: Published weights that training started from: model -> their file.
        runs: Timed calls per runtime; 0 times nothing.

    Raises:
        InputError: If there is no such model, a format needs a missing package, a
            written file predicts other probabilities, or the folder is no export's.
    """
    if "onnx" in formats:
        onnx_file.check_packages()
    _check_folder(out)
    model, store = load_model(make_system, config, row), open_store(config)
    system, stage = model.program.system, model.program.stage
    shape = (model.intake.signal.n_chans, model.intake.signal.n_times)
    graph = make_graph(
        system,
        stage,
        model.variables,
        {"signal": jax.ShapeDtypeStruct(shape, jnp.float32)},
        standardise=model.zscore and functools.partial(_standardise, model.zscore),
    )
    inputs = {"signal": real_windows(store, model.intake.signal.channels)}
    want = reference(graph, inputs)
    foreign = _foreign(Path(config.out) / "fold0", system, stage)
    with _whole_folder(out) as part:
        files = [
            _write_file(
                name,
                part,
                out,
                graph,
                inputs,
                want,
                foreign,
                multilabel=model.intake.signal.multilabel,
            )  # fmt: skip
            for name in formats
        ]
        timed = _time_files(part, formats, inputs, runs) if runs else ()
        card = make_card(
            model,
            config,
            row,
            weights=weights or {},
            sizes={name: x.size for name, x in graph.weights.items()},
            files=files,
            latency=timed,
        )
        write_atomic(part / CARD, render_card(card))
        write_json(part / VALUES, card)
        if model.intake.norms is not None:
            write_norms(part, [model.intake.norms])
    return card


def real_windows(
    store: WindowStore, channels: Sequence[str], num: int = NUM_WINDOWS
) -> np.ndarray:
    """Returns windows from all over a store, of some of its channels in order."""
    rows = np.unique(np.linspace(0, len(store) - 1, num).astype(int))
    known = list(store.manifest["channels"])
    columns = [known.index(name) for name in channels]
    return np.asarray(store.signal[rows], np.float32)[:, columns]


def _standardise(zscore: ZScore, signal: Array) -> Array:
    return (signal - zscore.mean[:, None]) / zscore.std[:, None]


def _foreign(fold: Path, system: System, stage: str) -> dict[str, np.ndarray]:
    """Reads the arrays of the stages before the exported one."""
    found = {}
    for other in system.stages:
        if other.name == stage:
            break
        folder = fold / other.name
        if not is_finished(folder):
            continue
        check_results(folder)
        if (folder / WEIGHTS).is_file():  # What was given has none there.
            arrays = named_arrays(load_variables(folder / WEIGHTS))
            found |= {f"{other.name}/{name}": x for name, x in arrays.items()}
    return found


class _Written(NamedTuple):
    """A file that was read back: its function, inputs and contents.

    `arrays` is None for a file of weights, which is no graph.
    """

    run: Callable[..., Any]
    inputs: Sequence[str] = ()
    arrays: Iterable[np.ndarray] | None = None


def _write_stablehlo(path: Path, graph: Graph) -> _Written:
    path.write_bytes(stablehlo.to_stablehlo(graph))
    exported = stablehlo.read_exported(path)
    # Arguments have no names there.
    names = [*graph.inputs, *["another array"] * len(exported.in_avals)]
    return _Written(
        stablehlo.load_stablehlo(path),
        names[: len(exported.in_avals)],
        stablehlo.stablehlo_arrays(exported),
    )


def _write_onnx(path: Path, graph: Graph) -> _Written:
    path.write_bytes(onnx_file.to_onnx(graph))
    written = onnx_file.read_onnx(path)

    @functools.cache
    def session() -> Callable[..., Any]:
        return onnx_file.load_onnx(path)

    return _Written(
        # Loaded at its first call: a file that fails to load is refused like others.
        lambda *arrays: session()(*arrays),
        onnx_file.onnx_inputs(written),
        onnx_file.onnx_arrays(written),
    )


def _write_safetensors(path: Path, graph: Graph) -> _Written:
    save_variables(path, graph.variables)
    loaded = named_arrays(load_variables(path))
    leaves = [loaded[name] for name in graph.weights]
    again = jax.tree.unflatten(jax.tree.structure(graph.variables), leaves)
    return _Written(jax.jit(graph._replace(variables=again).fn))


_WRITERS: Mapping[str, Callable[[Path, Graph], _Written]] = {
    "stablehlo": _write_stablehlo,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _write_file(
    name: str,
    part: Path,
    out: Path,
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    want: np.ndarray,
    foreign: Mapping[str, np.ndarray],
    *,
    multilabel: bool,
) -> ModelFile:
    """Writes one format, reads it back, and checks it against the model."""
    path, shown = part / FILES[name], str(out / FILES[name])
    written = _WRITERS[name](path, graph)
    audit = None
    if written.arrays is not None:
        audit = audit_graph(shown, graph, written.inputs, written.arrays, foreign)
    parity = check_parity(shown, written.run, want, inputs, multilabel=multilabel)
    return ModelFile(
        name=path.name,
        size=path.stat().st_size,
        sha256=hash_file(path),
        parity=parity,
        audit=audit,
    )


def _time_files(
    part: Path, formats: Sequence[str], inputs: Mapping[str, np.ndarray], runs: int
) -> list[Latency]:
    """Measures the time of one window in each runtime, with one thread and with all."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        window = Path(folder) / "window.npz"
        first: dict[str, Any] = {name: x[:1] for name, x in inputs.items()}
        np.savez(window, **first)
        for name in formats:
            for threads in dict.fromkeys((1, num_cores())):
                if name in RUNTIMES:
                    args = (RUNTIMES[name], part / FILES[name], window)
                    found.append(measure_latency(*args, threads=threads, runs=runs))
    return found


def _check_folder(out: Path) -> None:
    """Refuses to replace a folder that holds anything but an earlier export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is no folder: choose another --out.")
    own = _OWN if (out / VALUES).is_file() else ()  # Every export has its values.
    others = sorted(p.name for p in out.iterdir() if p.name not in own)
    if others:
        raise InputError(
            f"{out} holds {others[0]}, which is no exported file, and the folder would "
            "be replaced: choose another --out."
        )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Yields a folder next to `out` that replaces it if all goes well."""
    part, old = (out.with_name(f".{out.name}.{end}") for end in ("new", "old"))
    with output_errors(out):
        # Leftovers of a killed export.
        remove_own(part, _OWN.__contains__)
        part.mkdir(parents=True)
        try:
            yield part
            sync_tree(part)
            if out.exists():
                out.rename(old)
            part.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            remove_own(part, _OWN.__contains__)
            remove_own(old, _OWN.__contains__)
