"""Who writes sound input, and the public readers and verbs that read it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import inputs
from tests.fuzz.serve import Refused

SMALL = (
    *("--data.rate", "64", "--data.band", "0.5", "25", "--data.window_s", "2"),
    *("--data.workers", "1"),
)


def recording(name: str, folder: Path, out: Path) -> Any:
    """Reads a recording; its numbers, of channels that are a voltage and not bad."""
    from eegkd.data import read_recording

    found = read_recording(folder / name)
    pairs = zip(found.channels, found.kinds, strict=True)
    used = [kind != "misc" and name not in found.bad_channels for name, kind in pairs]
    times = [(event.onset_s, event.duration_s) for event in found.events]
    return found.signal[np.array(used, bool)], found.rate, times


def verb(*args: Any) -> None:
    """Runs a verb.

    Raises:
        Refused: If it ends with exit code 2.
    """
    from eegkd.cli import main

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            code = main([str(arg) for arg in args])
    except SystemExit as end:  # tyro's, of wrong words
        code = end.code
    print(said.getvalue())  # noqa: T201 (what is printed is looked at)
    if code == 2:
        raise Refused(said.getvalue())
    if code:
        raise RuntimeError(f"exit code {code}")


def prepare(corpus: str, folder: Path, out: Path) -> Any:
    """Prepares a folder, and reads the store."""
    from eegkd.data import WindowStore

    options = SMALL if corpus == "folder" else ("--data.workers", "1")
    verb(
        "prepare",
        "--data.corpus",
        corpus,
        "--data.root",
        folder,
        "--out",
        out,
        *options,
    )
    store = WindowStore.open(out)
    return np.asarray(store.signal), store.index["label"], store.index["start_s"]


def store(folder: Path) -> None:
    """Writes a window store of noise."""
    from tests.support.stores import toy_store

    toy_store(folder / "store", num=50)


def open_store(folder: Path, out: Path) -> Any:
    """Opens a store and reads all of it."""
    from eegkd.data import WindowStore

    found = WindowStore.open(folder / "store")
    facts = found.rows().tolist(), found.classes, found.manifest["rate"]
    return (
        np.asarray(found.signal),
        [found.index[n] for n in sorted(found.index)],
        facts,
    )


def cache(folder: Path) -> None:
    """Fills a teacher cache with three kinds of numbers."""
    from tests.support import cache_toy

    cache_toy.fill(folder / "cache", 30, shard_rows=8, numbers="int8", rank=4)


def open_cache(folder: Path, out: Path) -> Any:
    """Opens a cache and reads all of it."""
    from eegkd.data import open_cache

    found = open_cache(folder / "cache")
    ids = found.window_ids
    tensors = found.tensors(ids)["teacher"]
    return ids, {k: t.gather(np.arange(len(ids))) for k, t in tensors.items()}


def given(folder: Path) -> None:
    """Writes outputs of another framework."""
    np.save(folder / "window_id.npy", np.arange(20)[::-1])
    values = np.random.default_rng(0).normal(size=(20, 3))
    np.save(folder / "teacher.logits.npy", values.astype(np.float32))


def fill_given(folder: Path, out: Path) -> Any:
    """Fills a cache with them, and reads it."""
    from eegkd.cache.external import open_external
    from eegkd.cache.fill import fill_cache, make_plan
    from eegkd.cache.forms import TensorForm

    name, ids = "teacher.logits", np.arange(20)
    found = open_external(folder, {name: ((3,), "float32")}, ids)
    plan = make_plan({"teacher": "a"}, ids, {name: TensorForm((3,), "float32")})
    filled = fill_cache(out, plan, found.produce)
    return filled.tensors(ids)["teacher"]["logits"].gather(ids)


def tree() -> Any:
    """Returns what is in a checkpoint."""
    import jax.numpy as jnp

    return {"a": jnp.arange(12.0).reshape(3, 4), "b": {"c": jnp.ones(5)}}


def checkpoint(folder: Path) -> None:
    """Writes two checkpoints."""
    from eegkd.train import checkpoint

    for step in (3, 7):
        checkpoint.save(folder / "checkpoints", step, tree(), {"rows": [1, 2]})


def restore(folder: Path, out: Path) -> Any:
    """Reads the newest."""
    from eegkd.train import checkpoint

    found = checkpoint.restore(folder / "checkpoints", tree())
    return None if found is None else found[0]


def run(folder: Path) -> None:
    """Writes a run, which nobody trained, and a recording."""
    from tests.support.untrained_runs import make_run

    for name in ("mine", "new"):
        (folder / name).mkdir()
    inputs.mine(folder / "mine")
    inputs.edf_plus(folder / "new")
    make_run(folder / "run", folder / "mine")


def read_config(folder: Path, out: Path) -> Any:
    """Reads what every verb reads of a run, and a copy of its options."""
    from eegkd.commands.options import parse_run, read_run, system_of
    from eegkd.deploy.load import load_intake

    entry, config = read_run(folder / "run")
    args = ["--config", str(folder / "run" / "config.json"), "--out", str(out)]
    parse_run(system_of(args) or "", args, "distill")
    found = load_intake(entry.make_system, entry.deployed(config))
    return found.manifest["rate"], found.event_classes, found.signal.channels


def load_model(folder: Path, out: Path) -> Any:
    """Reads a run's student, as predict and export do."""
    from eegkd.commands.options import read_run
    from eegkd.deploy.load import load_model

    entry, config = read_run(folder / "run")
    found = load_model(entry.make_system, entry.deployed(config))
    return found.variables._asdict(), found.threshold, found.temperature


def predict(folder: Path, out: Path) -> Any:
    """Predicts on a recording beside a run; the events that it wrote."""
    from eegkd.evaluate.szcore import read_szcore_tsv

    (recording,) = sorted((folder / "new").iterdir())
    verb("predict", recording, "--model", folder / "run", "--out", out)
    tables = [read_szcore_tsv(path) for path in sorted(out.rglob("*.tsv"))]
    return [[(e.onset_s, e.duration_s) for e in table.events] for table in tables]


def export(folder: Path, out: Path) -> Any:
    """Exports a run's student."""
    quick = ("--format", "safetensors", "--runs", 0, "--out", out)
    verb("export", folder / "run", *quick)


def predictions(folder: Path) -> None:
    """Writes predictions of windows."""
    from eegkd.evaluate.predictions import make_predictions, save_predictions

    prob = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    who = np.repeat(["a", "b", "c"], 10)
    found = make_predictions(prob, np.arange(30) % 3, who, who, np.arange(30.0))
    save_predictions(folder / "val.npz", found)


def load_predictions(folder: Path, out: Path) -> Any:
    """Reads them."""
    from eegkd.evaluate.predictions import load_predictions

    found = load_predictions(folder / "val.npz")
    assert len(set(map(len, found))) == 1
    return found._asdict()


def variables(folder: Path) -> None:
    """Writes weights of ours."""
    from eegkd.train.weights import save_variables
    from eegkd.typing import Variables

    kernel = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    params = {
        "head": {"kernel": kernel, "bias": np.ones(4, np.float32)},
        "mean": kernel,
    }
    save_variables(
        folder / "a.safetensors", Variables(params, {}, {"count": np.ones(2)})
    )


def load_variables(folder: Path, out: Path) -> Any:
    """Reads them, and the same file as one of others."""
    from eegkd.convert import read_weights
    from eegkd.train.weights import load_variables

    file = folder / "a.safetensors"
    return load_variables(file)._asdict(), read_weights(file)


def llama(folder: Path) -> None:
    """Writes a decoder in three shards."""
    from tests.support.llama_files import llama_tensors, write_shards

    write_shards(folder, llama_tensors())


def bert(folder: Path) -> None:
    """Writes a BERT."""
    from tests.support import bert_files

    bert_files.write(folder, bert_files.tensors())


def labram(folder: Path) -> None:
    """Writes a LaBraM in a file of PyTorch."""
    import torch

    from tests.support.foundation_files import labram_tensors

    tensors = {name: torch.from_numpy(a) for name, a in labram_tensors().items()}
    torch.save({"model": tensors}, folder / "a.pth")


def published(name: str, file: str, folder: Path, out: Path, **options: Any) -> Any:
    """Loads a published model."""
    from eegkd.models import load_pretrained

    return load_pretrained(name, folder / file, **options)[1]
