"""Declaration of a published model, and the parts of its loader."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from eegkd.convert.tables import Family
from eegkd.errors import InputError, suggest
from eegkd.models.loading import Lazy, Shardings, load_tree
from eegkd.typing import PyTree

Config = TypeVar("Config")


class WeightsLicence(NamedTuple):
    """One published set of weights.

    Attributes:
        source: Place of publication.
        licence: An SPDX name, or "none stated".
        note: Notice for users of the weights, or of a student of them.
    """

    source: str
    licence: str
    note: str = ""


class Planned(NamedTuple):
    """Facts of one published size for `plan` and `bench`.

    Attributes:
        config: Config of the model, or of the part that is trained by itself.
        module: Makes the module from the config.
        group: Name for its parameters, where they have no groups of their own.
        layers: Path of the linear layers that adapters are for, as a pattern.
        own: Groups that are trained besides adapters.
        tuned: Groups that are trained without adapters, besides `own`; () is all.
    """

    config: Any
    module: Callable[[Any], nn.Module]
    group: str = ""
    layers: str = "layers/*"
    own: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()


class Published(NamedTuple):
    """A published model: how it is loaded, saved and planned, and its licences.

    Attributes:
        load: `(files, **options) -> (module, variables)`, behind `load_pretrained`.
        licences: Published sets of its weights.
        families: Tables of tensors by module, for files that transformers and PEFT
            read; {} if it is not saved.
        plan: Published sizes by the names that `eegkd plan` takes.
    """

    load: Callable[..., tuple[nn.Module, PyTree]]
    licences: tuple[WeightsLicence, ...]
    families: Mapping[type[nn.Module], Family] = {}
    plan: Mapping[str, Planned] = {}


def make_config(
    cls: type[Config],
    found: Mapping[str, Any],
    options: Mapping[str, Any],
    parts: Mapping[str, Any] | None = None,
) -> Config:
    """Makes a config from fields of the files and those asked for in their place.

    Args:
        cls: Class of the config.
        found: Fields in the files.
        options: Fields by the caller.
        parts: Configs of its parts.

    Raises:
        InputError: If an option is no field, of its name or value; the message lists
            the fields.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            inside = [
                part
                for part, config in (parts or {}).items()
                if name in {field.name for field in dataclasses.fields(config)}
            ]
            cure = suggest(name, known)
            if inside:
                ways = " or ".join(f'{part}={{"{name}": ...}}' for part in inside)
                cure = f" It is one of a part: give {ways}."
            raise InputError(
                f"load_pretrained: {cls.__name__} has no field {name}.{cure} It has "
                f"{', '.join(known)}."
            )
    return cls(**{**found, **options, **(parts or {})})


def make_part(
    cls: type[Config],
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    dtype: Any,
) -> Config:
    """Makes the config of a part, whose fields are an option of the whole.

    Args:
        cls: Class of the part's config.
        name: Name of the part.
        config: Fields of the whole, by the files.
        options: Options of the whole, by the caller.
        dtype: Type of computation and parameters; None is the class's default.

    Raises:
        InputError: If the option does not list fields, or lists others.
    """
    given = options.get(name, {})
    if not isinstance(given, Mapping):
        raise InputError(
            f"load_pretrained: {name} is {given!r}, and has to list fields of the part "
            f'by name, as {name}={{"layers_out": (-1,)}}.'
        )
    return make_config(cls, config[name] | dtype_fields(dtype), given)


def dtype_fields(dtype: Any) -> dict[str, Any]:
    """Returns the fields of a config that give its type; none for None."""
    return {} if dtype is None else {"dtype": dtype, "param_dtype": dtype}


def make_tree(pairs: Any) -> PyTree:
    """Nests (path, array) pairs, on the default device."""
    return unflatten_dict({path: jnp.asarray(array) for path, array in pairs})


def load_fitting(
    source: str | Path,
    module: nn.Module,
    arrays: Sequence[Lazy],
    family: Family,
    *,
    dtype: Any,
    shardings: Shardings | None,
) -> PyTree:
    """Loads a module's parameters, unless options changed what they are.

    Args:
        source: Place of the parameters, for the message.
        module: The module, made with the options.
        arrays: Parameters that the files hold.
        family: Tables of the module.
        dtype: As for `load_tree`.
        shardings: As for `load_tree`.

    Raises:
        InputError: If a shape differs, or a parameter is not there.
    """
    fields = dataclasses.asdict(module.cfg)  # pyright: ignore[reportAttributeAccessIssue]
    wanted = {row.path: row.placed_shape for row in family.table(fields)}
    found = {array.path: array.shape for array in arrays}
    wrong = [
        f"{'/'.join(path)} is {found.get(path)} in the files, and by the options "
        f"{wanted.get(path)}"
        for path in dict.fromkeys([*wanted, *found])
        if wanted.get(path) != found.get(path)
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(
            f"{source}: {wrong[0]}{more}: leave out of the options the sizes that "
            "config.json says."
        )
    return load_tree(arrays, dtype=dtype, shardings=shardings)
