"""The parameters of a model, part by part."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from eegkd.typing import Variables

NamePart = Callable[[Sequence[str], Any, bool], tuple[str, Iterable[Any]]]
"""`(path, array, trained) -> (line of a parameter, its copies)`."""
PROMPTS = "prompts"
_MODULE_DEPTH = 3


class Part(NamedTuple):
    """Parameters of one part of a model, or of several equal ones.

    Attributes:
        name: "eeg/stem"; "eeg/block" stands for `copies` blocks.
        copies: Number of equal parts.
        parameters: Number in all copies together.
        trained: True if they have a gradient.
    """

    name: str
    copies: int
    parameters: int
    trained: bool


def count_parts(variables: Variables, name_part: NamePart | None = None) -> list[Part]:
    """Counts parameters by part, trained ones first.

    Args:
        variables: Arrays or their shapes.
        name_part: Names the part of each parameter; None takes top-level groups, or,
            where a group holds several modules, each of them. There numbered equals
            ("block_0", ...) are one line, prompts anywhere in a group are a part of
            their own, and frozen constants (vectors that no module owns) are left out.
    """
    found: dict[tuple[str, bool], tuple[set[Any], list[int]]] = {}
    for trained, tree in ((True, variables.params), (False, variables.frozen)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            path = [str(key.key) for key in keys]
            if name_part is None and not trained and len(path) == 1:
                continue
            line, copies = (name_part or _module_part)(path, leaf, trained)
            every, sizes = found.setdefault((line, trained), (set(), []))
            every.update(copies)
            sizes.append(math.prod(leaf.shape))
    return [
        Part(line, len(every), sum(sizes), trained)
        for (line, trained), (every, sizes) in found.items()
    ]


def _module_part(path: Sequence[str], leaf: Any, trained: bool) -> tuple[str, set[str]]:
    del leaf, trained
    name = "/".join(path[:2]) if len(path) > _MODULE_DEPTH else path[0]
    if PROMPTS in path[1:]:
        name = f"{path[0]}/{PROMPTS}"
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() else name, {name}


def count_model_parts(variables: Variables, group: str = "") -> list[Part]:
    """Counts parameters by part; stacked layers are one line of so many copies.

    Args:
        variables: Result of `eegkd.systems.language.split_variables`.
        group: Prefix for a model that has no groups of its own.

    Returns:
        Parts such as "language/embed" and "language/layers"; adapters are named after
        their layers, "lora/language/layers".
    """
    outer = [group] if group else []

    def name_part(path: Sequence[str], leaf: Any, trained: bool) -> Any:
        if trained:
            kind, *path = path
            path = [*(["lora"] if kind == "lora" else []), *outer, *path]
        else:
            path = [*outer, *path]
        if "layers" in path[:-1]:
            return "/".join(path[: path.index("layers") + 1]), range(leaf.shape[0])
        return "/".join(path[:2]), range(1)

    return count_parts(variables, name_part)


def count_groups(parts: Sequence[Part]) -> dict[str, int]:
    """Counts parameters by top-level group, trained or not: backbone, head, ..."""
    found: dict[str, int] = {}
    for part in parts:
        group = part.name.partition("/")[0]
        found[group] = found.get(group, 0) + part.parameters
    return found
