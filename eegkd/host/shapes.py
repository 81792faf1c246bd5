"""Shapes of JSON values, stated as types, and values that are fitted to them."""

import dataclasses
import math
import types
import typing
from collections import abc
from collections.abc import Mapping
from typing import Any

from eegkd.host.text import plain

_NAMES = {
    **{str: "a text", bool: "true or false", int: "a whole number"},
    **{float: "a number", type(None): "null"},
}
_MANY = {"a text": "texts", "a number": "numbers", "a whole number": "whole numbers"}


def fit(shape: Any, value: Any, where: str = "it") -> Any:
    """Returns a JSON value as its shape has it.

    A shape is a type, as a field of a dataclass is annotated: `list[str]`,
    `tuple[float, float]`, `dict[str, int]`, `Literal["a", "b"]`, `float | None`; a
    TypedDict, whose objects may have more fields; a dataclass, which is made, and whose
    objects may not. Other types take any value.

    Args:
        shape: The shape.
        value: The value.
        where: Place of the value, for the message.

    Returns:
        The value; lists are tuples, and objects dataclasses, where the shape says so.

    Raises:
        ValueError: If it does not fit; the message names the place in the file, as
            "store.path is 3, not a text".
    """
    kind, inner = typing.get_origin(shape) or shape, typing.get_args(shape)
    if kind is typing.Annotated:
        return fit(inner[0], value, where)
    if kind in (typing.Union, types.UnionType):
        return _fit_one(shape, value, where)
    if kind is typing.Literal:
        _check(value in inner and not isinstance(value, bool), shape, value, where)
        return value
    if dataclasses.is_dataclass(kind):
        return _make(typing.cast(type, kind), value, where)
    if typing.is_typeddict(kind):
        return _fit_record(kind, value, where)
    if kind in (tuple, list, abc.Sequence):
        return _fit_list(shape, value, where)
    if kind in (dict, abc.Mapping):
        _check(isinstance(value, dict), shape, value, where)
        of = inner[1] if inner else Any
        return {name: fit(of, x, _inside(where, name)) for name, x in value.items()}
    if kind in _NAMES:
        _check(_is_plain(kind, value), shape, value, where)
    return value


def _is_plain(kind: type, value: Any) -> bool:
    """Checks a text, a number, true, false or null."""
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _fit_one(shape: Any, value: Any, where: str) -> Any:
    """Fits the first of some shapes that a value has."""
    inner, said = typing.get_args(shape), ""
    for each in inner:
        try:
            return fit(each, value, where)
        except ValueError as error:
            said = said or str(error)
    # Of a list or an object the first shape tells what is wrong inside.
    if isinstance(value, list | dict) and not said.startswith(f"{where} is "):
        raise ValueError(said)
    raise _misfit(shape, value, where)


def _fit_list(shape: Any, value: Any, where: str) -> Any:
    inner = typing.get_args(shape)
    kind = typing.get_origin(shape) or shape
    _check(isinstance(value, list | tuple), shape, value, where)
    shapes = [inner[0] if inner else Any] * len(value)
    if kind is tuple and inner and inner[-1] is not ...:
        _check(len(value) == len(inner), shape, value, where)
        shapes = list(inner)
    pairs = zip(shapes, value, strict=True)
    items = [fit(of, x, f"{where}[{i}]") for i, (of, x) in enumerate(pairs)]
    return items if kind is list else tuple(items)


def _fit_record(kind: Any, value: Any, where: str) -> dict[str, Any]:
    """Fits the known fields of an object that may have others."""
    _check(isinstance(value, dict), dict, value, where)
    for name in sorted(kind.__required_keys__ - set(value)):
        raise ValueError(f"{_inside(where, name)} is missing")
    hints = typing.get_type_hints(kind)
    known = {
        name: fit(hints[name], x, _inside(where, name))
        for name, x in value.items()
        if name in hints
    }
    return {**value, **known}


def _make(cls: type, value: Any, where: str) -> Any:
    """Makes a dataclass of an object of its fields."""
    _check(isinstance(value, dict), dict, value, where)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        at = "" if where == "it" else f"{where} "
        raise ValueError(f"{at}has an unknown field {plain(unknown[0], 40)}")
    for name, field in fields.items():
        bare = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if bare and name not in value:
            raise ValueError(f"{_inside(where, name)} is missing")
    own = {name: fit(hints[name], x, _inside(where, name)) for name, x in value.items()}
    try:
        return cls(**own)
    except ArithmeticError as error:  # Of its own checks, which divide.
        raise ValueError(f"{where} has a size that is 0 ({error})") from error


def _inside(where: str, name: str) -> str:
    name = plain(name, 40)
    return name if where == "it" else f"{where}.{name}"


def _check(fits: bool, shape: Any, value: Any, where: str) -> None:
    if not fits:
        raise _misfit(shape, value, where)


def _misfit(shape: Any, value: Any, where: str) -> ValueError:
    return ValueError(f"{where} is {_found(value)}, not {_wanted(shape)}")


def _found(value: Any) -> str:
    """Formats a value in a few words."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, str):
        return repr(plain(value, 40))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _wanted(shape: Any) -> str:
    """Formats a shape in a few words."""
    kind, inner = typing.get_origin(shape) or shape, typing.get_args(shape)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(_wanted, inner))
    if kind is typing.Literal:
        return " or ".join(map(repr, inner))
    if kind in (tuple, list, abc.Sequence):
        each = _MANY.get(_wanted(inner[0]), "values") if inner else "values"
        fixed = kind is tuple and inner and inner[-1] is not ...
        return f"a list of {len(inner)} {each}" if fixed else f"a list of {each}"
    return _NAMES.get(kind, "an object")
