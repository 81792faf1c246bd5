"""What the tables and JSON files beside a BIDS recording say of it.

They are read here and not by mne-bids, which the tests compare with: it opens every
recording anew for that and takes three times as long as reading the signals here does,
takes one of several tables that fit, renames the channels of the file where a table has
as many others, and makes an unknown duration 0, all without an error; and it is one
package less that has to be there.

References:
    BIDS 1.10, "The inheritance principle"; "Electroencephalography"; "Events".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.data.bids.layout import BidsFile, Dataset, levels, parse_name
from eegkd.data.bids.tables import is_missing, read_object, read_table
from eegkd.data.recordings.facts import ChannelFacts
from eegkd.data.recordings.recording import Kind
from eegkd.errors import InputError

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("EEG", "ECOG", "SEEG", "DBS"), "eeg"),
    **dict.fromkeys(("EOG", "HEOG", "VEOG"), "eog"),
    **{"ECG": "ecg", "EMG": "emg"},
    **dict.fromkeys(
        (
            *("MISC", "TRIG", "RESP", "REF", "AUDIO", "EYEGAZE", "GSR", "PPG", "PUPIL"),
            *("SYSCLOCK", "TEMP", "PD", "ADC", "DAC", "OTHER", "ACCEL", "GYRO", "MAGN"),
        ),
        "misc",
    ),
}
"""Types of channels.tsv. A recorded reference (REF) is flat, and no EEG."""


def find_table(dataset: Dataset, file: BidsFile, suffix: str) -> Path | None:
    """Returns the table that holds for a recording, by the inheritance principle.

    A table fits if all entities of its name are the recording's. The one in the nearest
    folder holds, of several there the one with most entities.

    Raises:
        InputError: If two of as many entities are in one folder.
    """
    for folder in levels(dataset.root, file):
        fits = _fitting(dataset, folder, file, suffix, ".tsv")
        if len(fits) > 1 and len(fits[-1].entities) == len(fits[-2].entities):
            raise InputError(
                f"{fits[-2].path} and {fits[-1].path} both hold for {file.path}. Name "
                "one of them in .bidsignore, or add an entity to its name."
            )
        if fits:
            return fits[-1].path
    return None


def find_events(dataset: Dataset, files: Sequence[BidsFile]) -> dict[Path, int | None]:
    """Finds the tables of events of a recording, and the part whose times they have.

    Raises:
        InputError: If some parts have one of their own, and some none.
    """
    found: dict[Path, int | None] = {}
    for part, file in enumerate(files):
        path = find_table(dataset, file, "events")
        named = path and parse_name(path)
        if path and named:
            found[path] = part if "split" in named.entities else None
    own = [part for part in found.values() if part is not None]
    if own and len(own) < len(files):
        raise InputError(
            f"{files[0].path}: some of its {len(files)} parts have an events.tsv of "
            "their own, and some have none. Give each part one, or all a single one "
            "without split- in its name."
        )
    return found


def read_metadata(dataset: Dataset, file: BidsFile, suffix: str) -> dict[str, Any]:
    """Returns the JSON fields that hold for a recording: those nearest to it win."""
    found: dict[str, Any] = {}
    for folder in reversed(levels(dataset.root, file)):
        for sidecar in _fitting(dataset, folder, file, suffix, ".json"):
            found |= read_object(sidecar.path)
    return found


def _fitting(
    dataset: Dataset, folder: Path, file: BidsFile, suffix: str, extension: str
) -> list[BidsFile]:
    """Lists the files of a folder that fit a recording, the least specific first."""
    fits = [
        other
        for other in dataset.beside[folder]
        if (other.suffix, other.extension) == (suffix, extension)
        and other.entities.items() <= file.entities.items()
    ]
    return sorted(fits, key=lambda other: len(other.entities))


def read_channels(dataset: Dataset, file: BidsFile) -> ChannelFacts | None:
    """Reads what channels.tsv says of a recording's channels; None without a table.

    Raises:
        InputError: If a type, unit or status is none that BIDS knows.
    """
    path = find_table(dataset, file, "channels")
    if path is None:
        return None
    table = read_table(path, needs=("name",))
    source = path.relative_to(dataset.root).as_posix()
    names = [row.cells["name"] for row in table.rows]
    kinds, units, bad = [], [], []
    for row in table.rows:
        kinds.append(_kind(path, row.line, row.cells.get("type", "")))
        unit = row.cells.get("units", "")
        units.append("" if is_missing(unit) else unit)
        status = row.cells.get("status", "").casefold()
        if status not in ("good", "bad") and not is_missing(status):
            raise InputError(
                f"{path}, line {row.line}: status {status!r}. Write good, bad or n/a."
            )
        bad.append(status == "bad")
    return ChannelFacts(source, tuple(names), tuple(kinds), tuple(units), tuple(bad))


def _kind(path: Path, line: int, text: str) -> Kind | None:
    if is_missing(text):
        return None
    if text.upper() not in _KINDS:
        raise InputError(
            f"{path}, line {line}: channel type {text!r} is none of BIDS. Choose of "
            f"{', '.join(_KINDS)} or n/a."
        )
    return _KINDS[text.upper()]
