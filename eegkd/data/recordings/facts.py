"""What a table beside a recording says of its channels, set against the file."""

from pathlib import Path
from typing import NamedTuple

from eegkd.data.recordings.names import canonical_name, canonical_names
from eegkd.data.recordings.recording import Kind
from eegkd.data.recordings.signals import Signals, is_no_voltage, voltage
from eegkd.errors import InputError


class ChannelFacts(NamedTuple):
    """Columns of a table of channels, row by row.

    Attributes:
        source: The table, for messages.
        names: Names, in any spelling.
        kinds: Kinds of signal; None where it does not say.
        units: Units as it spells them; "" where it does not say.
        bad: Whether a channel is marked as bad.
    """

    source: str
    names: tuple[str, ...]
    kinds: tuple[Kind | None, ...]
    units: tuple[str, ...]
    bad: tuple[bool, ...]


def join_facts(
    path: Path, signals: Signals, facts: ChannelFacts, *, overridden: bool
) -> Signals:
    """Returns the signals of a file with what a table says of them.

    The table decides what kind of signal a channel is, and states its unit where the
    file does not. Channels that it does not list are as the file has them.

    Args:
        path: The file.
        signals: Signals as read.
        facts: The table.
        overridden: The user has said what the numbers of EEG channels are.

    Raises:
        InputError: If the table names a channel that the file lacks, or one twice, or
            has another unit than the file.
    """
    kinds: list[Kind | None] = [None] * len(signals.names)
    dimensions, bad = list(signals.dimensions), {*signals.bad_channels}
    seen: set[int] = set()
    for row, place in enumerate(_places(path, signals, facts)):
        if place is None:
            continue
        if place in seen:
            raise InputError(
                f"{facts.source}: channel {facts.names[row]!r} of {path} is listed "
                "twice. Remove one of the rows."
            )
        seen.add(place)
        kind = kinds[place] = facts.kinds[row]
        if facts.bad[row]:
            bad.add(place)
        if facts.units[row] and kind != "misc":
            trusted = overridden and kind in ("eeg", None)
            dimensions[place] = _unit(path, facts, row, dimensions[place], trusted)
    return signals._replace(
        stated_kinds=tuple(kinds),
        dimensions=dimensions,
        bad_channels=tuple(sorted(bad)),
    )


def _unit(
    path: Path, facts: ChannelFacts, row: int, in_file: str, trusted: bool
) -> str:
    """Returns the unit of a channel: the file's, or the table's where it has none."""
    in_table, kind = facts.units[row], facts.kinds[row]
    where = f"{facts.source}: channel {facts.names[row]!r}"
    unit, stated = voltage(in_table), voltage(in_file)
    if unit is None:
        if kind is None:
            return in_file
        raise InputError(
            f"{where} is {kind.upper()} in units of {in_table!r}, which is no voltage. "
            "Correct its units or its type."
        )
    if not (stated or is_no_voltage(in_file)):
        return unit
    if unit == stated or trusted:
        return in_file
    cure = "Correct the table."
    if stated and kind in ("eeg", None):
        cure = f"Say --data.unit {stated} if the file is right, or correct the table."
    raise InputError(
        f"{where} has units {in_table!r}, but {path} is in {in_file!r}. {cure}"
    )


def _places(
    path: Path, signals: Signals, facts: ChannelFacts
) -> tuple[int | None, ...]:
    """Finds the file's channel of each row: by its exact name, else by any spelling.

    A channel of no interest (a trigger that the reader turned into events) may be
    missing.
    """
    names = signals.names
    exact = {name: place for place, name in enumerate(names)}
    canonical = canonical_names(names)
    loose = {name.casefold(): place for place, name in enumerate(canonical)}
    found = []
    for row, spelled in enumerate(canonical_names(facts.names)):
        name = facts.names[row]
        if facts.names.count(name) == 1:
            place = exact.get(name, loose.get(canonical_name(name).casefold()))
        else:  # MNE numbers equal labels, and so do canonical names.
            place = loose.get(spelled.casefold())
        if place is None and facts.kinds[row] != "misc":
            raise InputError(
                f"{facts.source}: channel {name!r} is not in {path} (it has "
                f"{', '.join(names)}). Write the names of the file into the table."
            )
        found.append(place)
    return tuple(found)
