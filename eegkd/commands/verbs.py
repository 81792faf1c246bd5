"""Verbs of a system that have options besides those of a run."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro

from eegkd.commands.options import parse, take_start, with_root
from eegkd.errors import InputError
from eegkd.systems.entry import Entry, find, names

Options = TypeVar("Options")


def introduce(verb: str, known: str = "", *others: str) -> None:
    """Prints what a verb takes, ahead of the options of the first system.

    Args:
        verb: Name of the verb.
        known: What it takes besides a system, in words.
        others: Other ways to call it.
    """
    first, *_ = systems = names()
    lines = [
        f"usage: eegkd {verb} SYSTEM [options]",
        *(f"       eegkd {verb} {way}" for way in others),
        "",
        f"SYSTEM is one of {', '.join(systems)}{known}.",
        f"`eegkd {verb} SYSTEM --help` lists its options; those of {first} follow.",
    ]
    sys.stdout.write("\n".join(lines) + "\n\n")


def parse_verb(
    cls: type[Options], args: Sequence[str], verb: str
) -> tuple[Entry, Options, Any]:
    """Reads `SYSTEM [options]` of a verb that has options besides the run's.

    Args:
        cls: Options of the verb: a frozen dataclass with fields `preset` and `config`.
        args: Arguments after the verb; `--help` alone is that of the first system.
        verb: Name of the verb.

    Returns:
        The system, the verb's options, and the run's.

    Raises:
        InputError: If no system is named, or there is none of that name.
    """
    rest = list(args)
    if rest and rest[0] in ("-h", "--help"):
        introduce(verb)
        rest = [names()[0], *rest]
    if not rest or rest[0].startswith("-"):
        raise InputError(
            f"Name a system first, as in `eegkd {verb} distilclip_eeg --preset paper`: "
            f"choose {', '.join(names())}."
        )
    entry = find(rest[0])
    own = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    default, *_ = take_start(entry, rest[0], rest[1:], str(own["preset"]))
    joined = dataclasses.make_dataclass(
        cls.__name__,
        [("run", Annotated[type(default), tyro.conf.arg(name="")], default)],
        bases=(cls,),
        kw_only=True,
        frozen=True,
    )
    joined.__doc__ = cls.__doc__
    both: Any = parse(joined, rest[1:], f"{verb} {rest[0]}")
    options = cls(**{name: getattr(both, name) for name in own})
    return entry, options, dataclasses.replace(both.run, data=with_root(both.run.data))


def spell_out(args: Sequence[str], *flags: str) -> list[str]:
    """Expands a bare flag: `--json` becomes `--json True`."""
    spelled = []
    for i, arg in enumerate(args):
        spelled.append(arg)
        follows = args[i + 1] if i + 1 < len(args) else ""
        name = arg.removeprefix("--").replace("-", "_")
        if arg.startswith("--") and name in flags and follows not in ("True", "False"):
            spelled.append("True")
    return spelled
