"""A first look at what `predict` is given, before anything is loaded for it."""

import os
from collections.abc import Sequence

from eegkd.errors import InputError


def look(args: Sequence[str]) -> None:
    """Refuses paths that lead nowhere, where all do: to load the verb takes seconds.

    Recordings are the words before the first option. Where some of them can be
    reached, the verb itself names the others, after those are done.

    Raises:
        InputError: If there are recordings and none can be reached.
    """
    words: list[str] = []
    for word in args:
        if word.startswith("-"):
            break
        words.append(word)
    if words and not any(os.path.exists(os.path.expanduser(word)) for word in words):
        said = "no such file. Check the path."
        raise InputError(" ".join(f"{word}: {said}" for word in words))
