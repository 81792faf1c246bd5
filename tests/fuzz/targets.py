"""What is damaged, and how: the table of targets."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fuzz import formats, hostile, hostile_runs, inputs, mutations, readers
from tests.fuzz.cases import CASES
from tests.fuzz.damage import extra, strange_name
from tests.fuzz.serve import Target


def _recordings() -> list[Target]:
    edf = (formats.edf_field,) * 3
    text = (mutations.text_line, mutations.other_number)
    word = (mutations.words, mutations.other_number)
    table: Sequence[tuple[str, str, Mapping[str, Any]]] = (
        ("edf", "a.edf", {"*": edf}),
        ("edf_plus", "a.edf", {"*": edf}),
        ("bdf", "a.bdf", {"*": edf}),
        ("gdf", "a.gdf", {"*": (mutations.huge_word,)}),
        ("wfdb", "a.hea", {"*.hea": word, "*": ()}),
        ("brainvision", "a.vhdr", {"*.v*": text, "*": (mutations.nan_word,)}),
        ("fif", "a_raw.fif", {"*": (mutations.huge_word, mutations.nan_word)}),
        ("eeglab", "a.set", {"*": (mutations.huge_word, mutations.nan_word)}),
    )
    return [
        Target(
            name, getattr(inputs, name), functools.partial(readers.recording, file), own
        )
        for name, file, own in table
    ]


def _sealed(name: str, make: Callable, read: Callable, **more: Any) -> Target:
    array = {"*.npy": (formats.npy_array,), "*.npz": (formats.zip_member,)}
    own = {**array, "*.json": (mutations.json_value,), "*": ()}
    return Target(name, make, read, own, sealed=True, **more)


__all__ = ["CASES", "NIGHTLY", "TARGETS", "hostile", "hostile_runs"]

_JSON = (mutations.json_value,)
_FORGED = (formats.resealed(mutations.json_value),)
_WEIGHTS = (formats.safetensors_header, formats.safetensors_values)
_ZIP = (formats.zip_member, formats.zip_member, formats.deflated)
_FOLDER = (strange_name, extra)

TARGETS: Sequence[Target] = (
    *_recordings(),
    Target(
        "labels",
        inputs.mine,
        functools.partial(readers.prepare, "folder"),
        {"labels.csv": (mutations.csv_cell,)},
    ),
    Target(
        "folder",
        inputs.mine,
        functools.partial(readers.prepare, "folder"),
        {"*": (*_FOLDER, *_FOLDER, formats.edf_field)},
    ),
    *(
        Target(name, inputs.arrays, functools.partial(readers.prepare, "arrays"), own)
        for name, own in {
            "windows_json": {"windows.json": _JSON},
            "npz": {"*.npz": _ZIP},
            "npy": {"*.npy": (formats.npy_array,), "*.csv": (mutations.csv_cell,)},
        }.items()
    ),
    _sealed("store", readers.store, readers.open_store),
    _sealed("cache", readers.cache, readers.open_cache),
    Target("manifest", readers.store, readers.open_store, {"*/manifest.json": _FORGED}),
    Target(
        "cache_manifest",
        readers.cache,
        readers.open_cache,
        {"*/manifest.json": _FORGED},
    ),
    Target("given", readers.given, readers.fill_given, {"*.npy": (formats.npy_array,)}),
    _sealed("checkpoint", readers.checkpoint, readers.restore, within=True),
    Target(
        "meta",
        readers.checkpoint,
        readers.restore,
        {"*meta.json": _FORGED},
        within=True,
    ),
    Target(
        "config_json",
        readers.run,
        readers.read_config,
        {"run/config.json": _JSON, "run/store/manifest.json": _FORGED},
    ),
    Target(
        "run",
        readers.run,
        readers.load_model,
        {
            "run/fold0/student/seed0/*.npz": _ZIP,
            "run/fold0/student/seed0/*.safetensors": _WEIGHTS,
            "run/fold0/student/seed0/done.json": _JSON,
            "run/store/*": (),
        },
        sealed=True,
    ),
    Target("predictions", readers.predictions, readers.load_predictions, {"*": _ZIP}),
    Target("safetensors", readers.variables, readers.load_variables, {"*": _WEIGHTS}),
    Target(
        "llama",
        readers.llama,
        functools.partial(readers.published, "llama", ""),
        {"*.json": _JSON, "*.safetensors": _WEIGHTS},
    ),
    Target(
        "bert",
        readers.bert,
        functools.partial(readers.published, "bert", ""),
        {"*.json": _JSON, "*.safetensors": _WEIGHTS},
    ),
    Target(
        "torch",
        readers.labram,
        functools.partial(readers.published, "labram", "a.pth", num_patches=5),
        {"*": (formats.pickled, formats.deflated, mutations.flip_bits)},
    ),
)

_RUN = {
    "new/*": (strange_name, formats.edf_field),
    "run/*.npz": _ZIP,
    "run/*.safetensors": _WEIGHTS,
    "run/*.json": _JSON,
    "run/*": (),
}
NIGHTLY: Sequence[Target] = (
    Target("predict", readers.run, readers.predict, _RUN),
    Target("export", readers.run, readers.export, _RUN, within=True),
)
"""Verbs that build a model, and so take seconds a seed."""
