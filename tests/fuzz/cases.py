"""Inputs made by hand: what they are made of, and what is right for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REFUSED = ("refused",)
SAME = ("read",)
EITHER = ("read", "refused")


class Case(NamedTuple):
    """One input.

    Attributes:
        target: Name of the target that reads it.
        change: Turns the target's sound input into it.
        kinds: What may become of it.
        words: Words of the message.
        same: True where what is read has to be what the sound input holds.
    """

    target: str
    change: Callable[[Path], Any]
    kinds: tuple[str, ...] = REFUSED
    words: tuple[str, ...] = ()
    same: bool = False


CASES: dict[str, Case] = {}


def case(name: str, target: str, *args: Any, **options: Any) -> Callable:
    """Adds what a function makes of sound input, by its name, to the cases."""

    def add(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES[name] = Case(target, change, *args, **options)
        return change

    return add
