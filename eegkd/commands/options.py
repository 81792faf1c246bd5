"""Typed options from dataclasses, and functions that the verbs share."""

import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from eegkd.config import RunConfig, preset_config, run_config
from eegkd.data.config import DataConfig
from eegkd.data.corpora import corpus_names, fill_root
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.prepare import prepare
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.paths import in_full
from eegkd.pipeline.folder import from_json, read_copy, read_record
from eegkd.systems.entry import Entry, find
from eegkd.train.distributed import in_turn

Options = TypeVar("Options")

REAL_DATA = "EEGKD_REAL_DATA"
_logger = logging.getLogger(__name__)
# Lists the corpora in the help of an option; data/ does not import tyro.
DataConfig.__annotations__["corpus"] = Annotated[
    str,
    tyro.conf.arg(
        help_behavior_hint=lambda default: (
            f"(default: {default}; found: {', '.join(corpus_names())})"
        )
    ),
]


def with_home(args: Sequence[str]) -> list[str]:
    """Expands `~` at the start of every value: shells leave it alone behind "="."""

    def expanded(arg: str) -> str:
        name, sign, value = arg.partition("=")
        if arg.startswith("-") and sign:
            return f"{name}={os.path.expanduser(value)}"
        return os.path.expanduser(arg)

    return [expanded(arg) for arg in args]


def parse(
    cls: type[Options], args: Sequence[str], verb: str, **default: Any
) -> Options:
    """Reads options of a dataclass; keys are dotted, as `--prompt.mode none`.

    Raises:
        InputError: If a value is out of range (wrong words exit with code 2 at once).
    """
    try:
        found = tyro.cli(
            cls,
            args=with_home(args),
            prog=f"eegkd {verb}",
            use_underscores=True,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            **default,
        )
    except ArithmeticError as error:  # Of a config's own checks, which divide.
        raise InputError(f"Bad option: a size cannot be 0 ({error}).") from error
    except ValueError as error:
        raise InputError(f"Bad option: {error}") from error
    for name, value in _numbers(found):
        if not math.isfinite(value):
            raise InputError(f"--{name} {value}: give a number.")
    return found


def _numbers(options: Any, start: str = "") -> Iterator[tuple[str, float]]:
    """Lists the floats among options, with their dotted names."""
    for field in dataclasses.fields(options):
        name, value = f"{start}{field.name}", getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.".removeprefix("run."))
        values = value if isinstance(value, tuple) else (value,)
        yield from ((name, x) for x in values if isinstance(x, float))


def take_option(args: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Takes `--name VALUE` or `--name=VALUE` out of the arguments."""
    args = with_home(args)
    rest, value = list(args), None
    for i, arg in enumerate(args):
        if arg == f"--{name}":
            if i + 1 == len(args):
                raise InputError(f"--{name} needs a value.")
            value, rest = args[i + 1], [*args[:i], *args[i + 2 :]]
            break
        if arg.startswith(f"--{name}="):
            value, rest = arg.partition("=")[2], [*args[:i], *args[i + 1 :]]
            break
    return value, rest


def take_start(
    entry: Entry, system: str, args: Sequence[str], preset: str
) -> tuple[Any, str, list[str]]:
    """Takes `--preset NAME` or `--config FILE`, the options that others change.

    Args:
        entry: The system.
        system: Its name.
        args: Arguments after the name.
        preset: Preset where neither is given.

    Returns:
        The options, a name for them, and the other arguments. Those of a file are
        without its run folder: the run is repeated elsewhere.

    Raises:
        InputError: If both are given, or the file is no config.json of the system.
    """
    file, rest = take_option(args, "config")
    chosen, rest = take_option(rest, "preset")
    if file is None:
        preset = chosen or preset
        return preset_config(entry, preset), preset, rest
    if chosen is not None:
        raise InputError("--preset and --config are both a start: give one of them.")
    record = _read_start(file)
    if record["system"] != system:
        raise InputError(
            f"--config {file} is of {record['system']}, not of {system}: name that "
            "system, or another file."
        )
    options = from_json(run_config(entry.config), record["run"], file)
    newer = missing_options(options, record["run"])
    if newer:
        _logger.warning(
            "%s is of an older version, without the options %s: they have their "
            "defaults of today.",
            file,
            ", ".join(newer),
        )
    return dataclasses.replace(options, out=""), "again", rest


def _read_start(file: str) -> dict[str, Any]:
    """Reads the config.json that `--config` names, or whose run folder it names."""
    path = Path(file)
    return read_copy(path / "config.json" if path.is_dir() else path)


def missing_options(options: Any, given: Mapping[str, Any]) -> list[str]:
    """Lists the options, by dotted names, that a file of a run does not have."""
    names = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name not in given:
            names.append(field.name)
        elif dataclasses.is_dataclass(value) and isinstance(given[field.name], Mapping):
            inner = missing_options(value, given[field.name])
            names += [f"{field.name}.{name}" for name in inner]
    return [name for name in names if name.partition(".")[0] != "signal"]


def system_of(args: Sequence[str]) -> str | None:
    """Returns the system that `--config FILE` is of, where it is given."""
    file, _ = take_option(args, "config")
    return None if file is None else _read_start(file)["system"]


def parse_run(
    system: str, args: Sequence[str], verb: str, *, preset: str = "small"
) -> tuple[Entry, Any]:
    """Reads a system's run options on top of `--preset` or `--config`."""
    entry = find(system)
    default, name, rest = take_start(entry, system, args, preset)
    about = (
        f"Options of a run of {system}. They start from --preset NAME (one of "
        f"{', '.join(entry.presets)}; {preset} if none is named) or from --config FILE "
        "(the config.json of another run), and change what follows."
    )
    config = parse(type(default), rest, verb, default=default, description=about)
    # A run is resumed, and repeated, from any folder.
    config = in_full(dataclasses.replace(config, data=with_root(config.data)))
    if not config.out:
        name = f"{system}-{config.data.corpus}-{name}-s{config.seed}"
        config = dataclasses.replace(config, out=str(Path("runs") / name))
    return entry, config


def with_root(config: DataConfig) -> DataConfig:
    """Fills an empty root from `$EEGKD_REAL_DATA`: one folder per corpus."""
    collection = os.environ.get(REAL_DATA)
    return fill_root(config, collection) if collection else config


def read_run(folder: Path) -> tuple[Entry, Any]:
    """Reads the system and options of a run folder.

    Raises:
        InputError: If the folder holds no run.
    """
    record = read_record(folder)
    entry = find(record["system"])
    config = from_json(run_config(entry.config), record["run"], folder / "config.json")
    return entry, dataclasses.replace(config, out=str(folder))


def refuse_variants(folder: Path, entry: Entry) -> None:
    """Checks that commands can build all systems of a run.

    Raises:
        InputError: If the run has variants that the system does not declare.
    """
    variants = [x for x in read_record(folder)["variants"] if x not in entry.variants]
    if variants:
        raise InputError(
            f"{folder} holds variants of the system ({', '.join(variants)}) that only "
            "the program which trained them can build: run that again, with --out "
            f"{folder}; what is finished is not trained again."
        )


def open_data(config: RunConfig) -> tuple[WindowStore, Any]:
    """Opens or prepares the store of a run, and splits it."""
    if config.store:
        store = WindowStore.open(config.store)
    else:
        store = in_turn(lambda: prepare(config.data, Path(config.out) / "store"))
    folds = make_folds(
        store, config.split, num_folds=config.num_folds, seed=config.seed
    )
    return store, folds
