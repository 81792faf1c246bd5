"""Names and folders of a BIDS data set: its recordings, and the files beside them.

Recordings are the files `sub-X/[ses-Y/]eeg/..._eeg.EXT` (or `ieeg`). Nothing else is
read as one: `derivatives`, `sourcedata`, `code` and `stimuli` are never entered, what
`.bidsignore` names is left out, and so are derivatives (`desc-X`), unless all of the
data set is one.

References:
    BIDS 1.10, "Common principles": entities, the inheritance principle, `.bidsignore`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.data.bids.ignored import read_ignored
from eegkd.data.bids.tables import check_present, read_object
from eegkd.errors import InputError

DESCRIPTION = "dataset_description.json"
DATATYPES = ("eeg", "ieeg")
_READ = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff")
_HEADERS = {".eeg": ".vhdr", ".fdt": ".set"}
"""Extensions of samples, and of the file that describes them."""
_NOT_READ = (".nwb", ".mefd", ".edf.gz", ".bdf.gz", ".zip", ".tar.gz")


class BidsFile(NamedTuple):
    """A file with a BIDS name.

    Attributes:
        path: The file.
        entities: Entities of its name in their order: {"sub": "01", "task": "rest"}.
        suffix: Last word of its name: "eeg", "events", "channels".
        extension: All from the first dot on, in lower case.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str


class Dataset(NamedTuple):
    """Files of a data set that concern its recordings.

    Attributes:
        root: Folder of the data set.
        description: Fields of `dataset_description.json`.
        recordings: The files of each recording: one, or its parts `split-1`, `split-2`
            in their order.
        beside: Tables and JSON files in each folder from the root down to a recording.
    """

    root: Path
    description: Mapping[str, Any]
    recordings: tuple[tuple[BidsFile, ...], ...]
    beside: Mapping[Path, tuple[BidsFile, ...]]


def parse_name(path: Path) -> BidsFile | None:
    """Splits a BIDS name into its parts; None if it is none."""
    stem, dot, extension = path.name.partition(".")
    *words, suffix = stem.split("_")
    pairs = [word.partition("-") for word in words]
    if not dot or not suffix or "-" in suffix or not all(all(pair) for pair in pairs):
        return None
    entities = {key: value for key, _, value in pairs}
    return BidsFile(path, entities, suffix, f".{extension}".lower())


def read_dataset(root: Path, wanted: Sequence[str] = ()) -> Dataset:
    """Lists the recordings of a data set.

    Args:
        root: Folder of the data set.
        wanted: Words as "task-rest", "ses-1" or "eeg": of each entity one of the values
            given; () is all.

    Raises:
        InputError: If there is no recording, or a file that must be one has a name
            that is none, lies in another person's folder, is of a format that is not
            read, is a link to nothing, or repeats a recording in a second form.
    """
    is_ignored = read_ignored(root)
    file = root / DESCRIPTION
    named = file.exists() or file.is_symlink()
    description = read_object(file) if named else {}
    derived = description.get("DatasetType") == "derivative"
    beside = {root: _beside(root, is_ignored)}
    found: list[BidsFile] = []
    for person in _folders(root, "sub", is_ignored):
        for visit in (person, *_folders(person, "ses", is_ignored)):
            beside[visit] = _beside(visit, is_ignored)
            for path in _entries(visit, is_ignored):
                if path.name.lower() in DATATYPES and path.is_dir():
                    beside[path] = _beside(path, is_ignored)
                    found += _recordings(root, path, is_ignored)
                else:
                    _check_place(path)
    found = [file for file in found if derived or "desc" not in file.entities]
    if not found:
        raise _nothing(root)
    chosen = _choose(root, found, wanted)
    for file in chosen:
        if file.extension in _NOT_READ:
            raise InputError(
                f"{file.path}: {file.extension} is not read. Save the recording as EDF "
                "or BrainVision, or choose others with --data.entities."
            )
        check_present(file.path)
    return Dataset(root, description, _group(chosen), beside)


def levels(root: Path, file: BidsFile) -> tuple[Path, ...]:
    """Lists the folders from that of a recording up to the root."""
    return tuple(root / folder for folder in file.path.relative_to(root).parents)


def _entries(folder: Path, is_ignored: Callable[[Path], bool]) -> Iterator[Path]:
    """Lists what a folder holds, without hidden and ignored entries."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}). Check its permissions."
        ) from error
    for path in paths:
        if not path.name.startswith(".") and not is_ignored(path):
            yield path


def _beside(folder: Path, is_ignored: Callable[[Path], bool]) -> tuple[BidsFile, ...]:
    named = (parse_name(path) for path in _entries(folder, is_ignored))
    return tuple(file for file in named if file and file.extension in (".tsv", ".json"))


def _folders(
    parent: Path, entity: str, is_ignored: Callable[[Path], bool]
) -> Iterator[Path]:
    """Lists the folders of people or of sessions."""
    for path in _entries(parent, is_ignored):
        if not path.name.lower().startswith(f"{entity}-"):
            continue
        if not path.exists():
            check_present(path)
        if path.is_dir():
            if not re.fullmatch(f"{entity}-[^_-]+", path.name):
                raise InputError(
                    f"{path}: no BIDS name, which is {entity}- and then letters and "
                    "digits. Rename the folder, or name it in .bidsignore."
                )
            yield path


def _recordings(
    root: Path, folder: Path, is_ignored: Callable[[Path], bool]
) -> Iterator[BidsFile]:
    """Lists the recordings of one folder `eeg` or `ieeg`."""
    above = folder.relative_to(root).parts[:-1]
    place = dict(name.split("-", 1) for name in above)
    paths = tuple(_entries(folder, is_ignored))
    names = {path.name.lower() for path in paths}
    for path in paths:
        file = parse_name(path)
        header = path.with_suffix(_HEADERS.get(path.suffix.lower(), path.suffix))
        if file and file.suffix in DATATYPES and header.name.lower() not in names:
            raise InputError(
                f"{path}: samples without {header.name}, which describes them. Copy it "
                "beside them."
            )
        if not path.name.lower().endswith((*_READ, *_NOT_READ)):
            continue
        if file is None or not file.entities:
            raise InputError(
                f"{path}: no BIDS name of a recording, which is as "
                f"{'_'.join(above)}_task-rest_eeg.edf. Rename it, or name it in "
                ".bidsignore."
            )
        if file.suffix not in DATATYPES:
            continue
        stated = {
            key: file.entities[key] for key in ("sub", "ses") if key in file.entities
        }
        if stated != place:
            raise InputError(
                f"{path}: its name and its folder {'/'.join(above)} are of different "
                "people or sessions. Move or rename it."
            )
        yield file


def _check_place(path: Path) -> None:
    """Refuses a recording that lies beside the folder `eeg` and not in it."""
    file = parse_name(path)
    if file and file.suffix in DATATYPES and file.extension in _READ:
        raise InputError(
            f"{path}: a recording outside the folder {file.suffix}, where BIDS has it. "
            "Move it there with its tables, or name it in .bidsignore."
        )


def _nothing(root: Path) -> InputError:
    inner = next((p for p in root.parents if p.name.startswith("sub-")), None)
    if root.name.startswith("sub-") or inner:
        cure = (
            f"Set --data.root to {(inner or root).parent}, the folder of the data set."
        )
    else:
        here = (root / DESCRIPTION).exists()
        below = (
            None if here else next(iter(sorted(root.glob(f"*/{DESCRIPTION}"))), None)
        )
        where = below.parent if below else f"the folder of {DESCRIPTION}"
        cure = (
            f"Set --data.root to {where}; files that are not in BIDS are read with "
            "--data.corpus folder."
        )
    ignored = root / ".bidsignore"
    without = "; what .bidsignore names is left out" if ignored.exists() else ""
    return InputError(
        f"{root}: no EEG recording of a BIDS data set, as sub-01/eeg/sub-01_task-rest_"
        f"eeg.edf (MEG is not read{without}). {cure}"
    )


def _choose(
    root: Path, found: Sequence[BidsFile], wanted: Sequence[str]
) -> list[BidsFile]:
    """Keeps the recordings that have one of the values wanted of each entity."""
    choice: dict[str, set[str]] = {}
    for word in wanted:
        key, _, value = word.partition("-")
        if word in DATATYPES:
            key, value = "", word
        elif not any(file.entities.get(key) == value for file in found):
            words = {f"{k}-{v}" for file in found for k, v in file.entities.items()}
            raise InputError(
                f"--data.entities {word}: no recording of {root} has it. Choose of "
                f"{', '.join(sorted(words, key=lambda w: (w.startswith('sub-'), w)))}."
            )
        choice.setdefault(key, set()).add(value)
    chosen = [
        file
        for file in found
        if all(
            {**file.entities, "": file.suffix}.get(k) in v for k, v in choice.items()
        )
    ]
    if not chosen:
        raise InputError(
            f"--data.entities {' '.join(wanted)}: no recording of {root} has all of "
            "these. Leave one out."
        )
    return chosen


def _group(found: Iterable[BidsFile]) -> tuple[tuple[BidsFile, ...], ...]:
    """Puts the parts of each recording together."""
    groups: dict[tuple[str, ...], list[BidsFile]] = {}
    for file in found:
        words = (
            f"{k}-{v}" for k, v in file.entities.items() if k not in ("split", "desc")
        )
        groups.setdefault((*sorted(words), file.suffix), []).append(file)
    for files in groups.values():
        _check_parts(files)
    return tuple(tuple(files) for files in groups.values())


def _check_parts(files: list[BidsFile]) -> None:
    """Sorts the parts of a recording; refuses two forms of one."""
    descs = [file.entities.get("desc", "") for file in files]
    if len(set(descs)) > 1:
        raise InputError(
            f"{files[0].path} and {files[-1].path} are one recording in two "
            f"derivatives. Choose with --data.entities desc-{max(descs)}."
        )
    names = [file.entities.get("split", "") for file in files]
    if names == [""]:
        return
    numbers = [int(name) for name in names if name.isdecimal()]
    if len({*numbers}) < len(names):
        raise InputError(
            f"{files[0].path} and {files[-1].path} are one recording in two forms. "
            "Name one of them in .bidsignore."
        )
    files.sort(key=lambda file: int(file.entities["split"]))
    for number, file in enumerate(files, start=1):
        if int(file.entities["split"]) != number:
            raise InputError(
                f"{file.path}: part split-{number} of the recording is not beside it. "
                "Copy it there; parts are counted from 1 on."
            )
