"""Fields of `_eeg.json` that decide how a recording may be read."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from eegkd.data.bids.layout import BidsFile, Dataset
from eegkd.data.bids.sidecars import read_metadata
from eegkd.data.bids.tables import is_missing
from eegkd.data.config import DataConfig
from eegkd.errors import InputError


class Metadata(NamedTuple):
    """What the JSON files beside a recording say of it.

    Attributes:
        rate: Samples per second; None if they do not say.
        spliced: The recording has gaps that its signal does not show.
    """

    rate: float | None
    spliced: bool


def check_metadata(dataset: Dataset, config: DataConfig) -> tuple[Metadata, ...]:
    """Reads the metadata of every recording, and sets it against the options.

    Raises:
        InputError: If a recording is in epochs, a number is none, `--data.notch` is not
            the line frequency, or references differ and no montage was chosen.
    """
    found, references = [], dict[str, BidsFile]()
    for files in dataset.recordings:
        file = files[0]
        fields = read_metadata(dataset, file, file.suffix)
        kind = str(fields.get("RecordingType", "")).casefold()
        if kind == "epoched":
            raise InputError(
                f"{file.path}: its RecordingType is epoched, and epochs are no "
                "recording to filter. Read the continuous one, or the epochs with "
                "--data.corpus arrays."
            )
        line = _number(file, fields, "PowerLineFrequency")
        if config.notch and line and config.notch != line:
            raise InputError(
                f"--data.notch {config.notch:g}: the PowerLineFrequency of {file.path} "
                f"is {line:g} Hz. Use --data.notch {line:g}, or choose recordings of "
                "one line frequency with --data.entities."
            )
        reference = fields.get(
            "iEEGReference" if file.suffix == "ieeg" else "EEGReference"
        )
        if isinstance(reference, str) and not is_missing(reference.strip()):
            references.setdefault(" ".join(reference.casefold().split()), file)
        rate = _number(file, fields, "SamplingFrequency")
        found.append(Metadata(rate, kind == "discontinuous"))
    _check_references(references, config)
    return tuple(found)


def _number(file: BidsFile, fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None or (isinstance(value, str) and is_missing(value)):
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < math.inf:
        raise InputError(
            f"{file.path}: {name} in its JSON files is {value!r}. Write a number of "
            "Hz, as 250."
        )
    return float(value)


def _check_references(references: Mapping[str, BidsFile], config: DataConfig) -> None:
    if len(references) > 1 and config.montage is None:
        (first, one), (second, other), *_ = references.items()
        raise InputError(
            f"{one.path} and {other.path} have different references ({first!r} and "
            f"{second!r}), so equal names are different signals. Choose --data.montage "
            "average or double_banana, which do not depend on it, or referential to "
            "take them as they are."
        )
