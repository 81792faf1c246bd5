"""Targets with a fault each, which the runner has to find."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.errors import InputError
from tests.fuzz import formats
from tests.fuzz.serve import Refused, Target


def make(folder: Path) -> None:
    (folder / "a").write_bytes(b"sound")


def is_sound(folder: Path) -> bool:
    return (folder / "a").is_file() and (folder / "a").read_bytes() == b"sound"


def careful(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        raise InputError("a is damaged: write it again.")
    out.mkdir()
    (out / "b").write_bytes(b"")
    return 1.0, "text", np.arange(3)


def fussy(folder: Path, out: Path) -> Any:
    if is_sound(folder) and folder.parent.parent.name != "first":
        raise Refused("no")


def careless(folder: Path, out: Path) -> Any:
    return {}[(folder / "a").read_bytes()] if not is_sound(folder) else None


def slow(folder: Path, out: Path) -> Any:
    while not is_sound(folder):
        time.sleep(0.01)


def fatal(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        os.abort()


def greedy(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        try:
            np.ones(2**29)
        except MemoryError as error:
            raise InputError("a is too large: cut it.") from error


def untidy(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        (folder / "b").write_bytes(b"")


def far(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        (folder.parents[2] / "b").write_bytes(b"")


def trusting(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        pickle.loads(pickle.dumps(formats.Planted()))


def blind(folder: Path, out: Path) -> Any:
    return np.array([1.0 if is_sound(folder) else np.nan])


def changing(folder: Path, out: Path) -> Any:
    return np.array([1.0 if is_sound(folder) else 2.0])


def raw(folder: Path, out: Path) -> Any:
    if not is_sound(folder):
        print("\x1b[31mred")  # noqa: T201
        raise Refused("no")


FAULTS = {
    "fussy": "sound refused",
    "careless": "traceback",
    "slow": "hang",
    "fatal": "crash",
    "greedy": "memory",
    "untidy": "outside",
    "far": "outside",
    "trusting": "unpickled",
    "blind": "not finite",
    "changing": "altered",
    "raw": "terminal",
}
TARGETS = [
    Target(name, make, globals()[name], {"*": ()}, sealed=name == "changing")
    for name in ("careful", *FAULTS)
]
