"""Declarations of systems, and their discovery without a list."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eegkd.errors import InputError, suggest
from eegkd.host.plugins import find_names, load_part
from eegkd.systems import System

GROUP = "eegkd.systems"
"""The group of entry points by which other distributions add systems."""


class Variant(NamedTuple):
    """A further row of results: the system with some options changed.

    Attributes:
        changes: Dotted options and their values.
        sentence: Meaning of the row, for the report's reader.
        same_teacher: True if it shares the system's own earlier stages.
    """

    changes: Mapping[str, Any]
    sentence: str
    same_teacher: bool = False


class Entry(NamedTuple):
    """One system: its options and its builder.

    Attributes:
        config: Type of the options, a frozen dataclass that inherits `SystemConfig`.
        make_system: `config -> System`.
        presets: Preset name -> dotted options of a run, as a user types them.
        deployed: `config -> config` that predicts the same with finished variables,
            and names no file that only training reads.
        notes: `config -> sentences` that the report's reader must not miss.
        variants: Further rows, by name: `--rows` may name them.
        registered: Rows that the student must all beat for "distillation helps":
            controls, baselines or variants, trained in every run. A system of which
            one cannot be made names others, or its runs have no verdict.
    """

    config: type
    make_system: Callable[[Any], System]
    presets: Mapping[str, Mapping[str, Any]]
    deployed: Callable[[Any], Any] = lambda config: config
    notes: Callable[[Any], Sequence[str]] = lambda config: ()
    variants: Mapping[str, Variant] = {}
    registered: tuple[str, ...] = ("no_teacher", "alpha_0")


def names() -> tuple[str, ...]:
    """Lists the names of all systems, without importing one."""
    return find_names("eegkd.systems", GROUP, folders=True)


def find(name: str) -> Entry:
    """Returns a system by its name.

    Raises:
        InputError: If there is none, or another distribution's cannot be imported or
            takes the name of a built-in one.
    """
    found = load_part("eegkd.systems", GROUP, name, what="system", folders=True)
    if found is None:
        known = names()
        raise InputError(
            f"There is no system {name!r}: choose {', '.join(known)}."
            f"{suggest(name, known)}"
        )
    entry = getattr(found, "ENTRY", found)
    if not isinstance(entry, Entry):
        raise InputError(
            f"The system {name} has no ENTRY but {entry!r}: its entry point is to name "
            "a package with an eegkd.systems.entry.Entry called ENTRY."
        )
    return entry


def check_preset(entry: Entry, name: str) -> Mapping[str, Any]:
    """Returns a preset's dotted options.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in entry.presets:
        choices = ", ".join(entry.presets)
        raise InputError(f"There is no preset {name!r}: choose {choices}.")
    return entry.presets[name]
