"""Privileged montage: a teacher that sees all channels, a student that sees a few.

A system has the switch `student_channels` when it builds its student's module for
`student_signal(config)`, and hands `see_channels(system, student_columns(config))` on
before it adds bridges. In training the student is given windows of all channels. A
finished student's system is `make_system(as_deployed(config))`: it takes windows of the
student's channels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from eegkd.data.recordings.names import canonical_name
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.systems import SignalConfig, System, SystemConfig, replace_stage
from eegkd.typing import Array, Batch, PyTree, Tensors, Variables

Config = TypeVar("Config", bound=SystemConfig)


def student_columns(config: SystemConfig) -> tuple[int, ...]:
    """Returns the columns of the signal that the student sees; () is all.

    Raises:
        InputError: If the data lack a channel, or one is named twice.
    """
    have, asked = config.signal.channels, config.student_channels
    found = [_find(name, have) for name in asked]
    unknown = [n for n, i in zip(asked, found, strict=True) if i is None]
    if unknown:
        names = " ".join(have) or "channels without names (--signal.channels)"
        raise InputError(
            f"--student_channels {' '.join(unknown)}: the windows have {names}."
        )
    columns = tuple(i for i in found if i is not None)
    if len(set(columns)) < len(columns):
        raise InputError(
            f"--student_channels {' '.join(asked)} names a channel twice: name it once."
        )
    return columns


def student_signal(config: SystemConfig) -> SignalConfig:
    """Returns the description of the student's signals.

    Raises:
        InputError: As `student_columns`.
    """
    signal, columns = config.signal, student_columns(config)
    if not columns:
        return signal
    return dataclasses.replace(
        signal,
        n_chans=len(columns),
        channels=tuple(signal.channels[i] for i in columns),
        units=tuple(signal.units[i] for i in columns) if signal.units else (),
    )


def as_deployed(config: Config) -> Config:
    """Returns the options of a system whose windows are the student's alone."""
    signal = student_signal(config)
    return dataclasses.replace(config, signal=signal, student_channels=())


def see_channels(system: System, columns: tuple[int, ...]) -> System:
    """Returns `system` with a student that sees some columns of the signal.

    Args:
        system: System whose student is built for as many channels.
        columns: Columns, in the student's order; () changes nothing.
    """
    if not columns:
        return system
    student, chosen = system.stages[-1], np.array(columns)

    def seen(batch: Batch) -> Batch:
        return {**batch, "signal": jnp.asarray(batch["signal"])[:, chosen]}

    def init(
        key: Array, batch: Batch, upstream: Mapping[str, Variables], *loaded: PyTree
    ) -> Variables:
        return student.init(key, seen(batch), upstream, *loaded)

    def forward(
        variables: Variables,
        batch: Batch,
        upstream: Mapping[str, Tensors],
        *,
        train: bool,
        key: Any,
    ) -> tuple[Tensors, Any]:
        batch = seen(batch)
        return student.forward(variables, batch, upstream, train=train, key=key)

    narrow = student._replace(init=init, forward=forward)
    if (judge := student.predict) is not None:
        narrow = narrow._replace(predict=lambda v, batch: judge(v, seen(batch)))
    return replace_stage(system, narrow)._replace(columns=columns)


def _find(name: str, channels: Sequence[str]) -> int | None:
    """Returns the index of a channel by its name or an alias ("T3" is "T7")."""
    for spell in (str.upper, lambda name: canonical_name(name).upper()):
        spelled = [spell(channel) for channel in channels]
        if spell(name) in spelled:
            return spelled.index(spell(name))
    return None


def check_columns(config: SystemConfig, systems: Mapping[str, System]) -> None:
    """Checks that every system honours `student_channels`.

    Raises:
        InputError: If one does not, or the data have no such channels.
    """
    columns = student_columns(config)
    for system in systems.values():
        if system.columns != columns:
            raise InputError(
                f"--student_channels: the system {system.name} does not take it: its "
                "make_system has to build the student for student_signal(config), and "
                "to use see_channels (eegkd/systems/channels.py)."
            )


def channel_notes(config: SystemConfig, store: WindowStore) -> tuple[str, ...]:
    """Formats which channels teacher and student see, and what deployment lacks."""
    if not config.student_channels:
        return ()
    names = ", ".join(config.signal.channels[i] for i in student_columns(config))
    notes = [
        f"The student and all models beside it see {names}; the teacher sees all "
        f"{config.signal.n_chans} channels."
    ]
    if needs_all(store.manifest["preprocessing"]):
        notes.append(
            "Windows are referenced to the average of the head's electrodes, so that "
            "the student cannot be used on a recording of its own channels alone: "
            "prepare with --data.montage referential for one that can."
        )
    return tuple(notes)


def needs_all(preprocessing: Mapping[str, object]) -> bool:
    """Returns True if a channel's windows are made from other channels too."""
    return preprocessing.get("montage") == "average"
