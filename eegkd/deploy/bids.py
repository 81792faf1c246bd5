"""Predictions on a BIDS dataset, as a derivative dataset of it.

Each recording's events are `<its entities>_desc-eegkd_events.tsv` with a sidecar, in
the folder that the recording has in its own dataset. `dataset_description.json` names
the program and links the datasets that recordings are of; nothing says when.

References:
    Brain Imaging Data Structure 1.10, "Derivatives" and "Common data types".
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.errors import InputError
from eegkd.host.atomic import write_atomic
from eegkd.host.json_file import parse_json, read_text
from eegkd.pipeline.folder import versions

DESCRIPTION = "dataset_description.json"
PROGRAM = "eegkd"
_VERSION = "1.10.0"
_NAME = re.compile(
    r"(sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)_(?:eeg|ieeg|meg)\.[A-Za-z0-9.]+"
)
_BESIDE = {
    ".bidsignore": "figures/\n",
    "descriptions.tsv": (
        "desc_id\tdescription\n"
        f"{PROGRAM}\tEvents and probabilities that a model found, by `eegkd predict`\n"
    ),
}


class BidsFile(NamedTuple):
    """Place of a recording in its dataset.

    Attributes:
        root: Folder of the dataset.
        path: The file in it, with "/" between folders.
        entities: Name of the file without suffix and extension.
    """

    root: Path
    path: str
    entities: str

    @property
    def stem(self) -> str:
        """The entities of what is derived from it; its own description goes first."""
        name, _, described = self.entities.partition("_desc-")
        own, _, rest = described.partition("_")
        label = f"{own}{PROGRAM.capitalize()}" if own else PROGRAM
        return "_".join(filter(None, (name, rest, f"desc-{label}")))


def find_bids(path: Path) -> BidsFile | None:
    """Finds the dataset of a recording; None if its name or place is not of BIDS."""
    named = _NAME.fullmatch(path.name)
    if named is None:
        return None
    for root in path.absolute().parents:
        if (root / DESCRIPTION).is_file():
            inside = path.absolute().relative_to(root)
            entities = named.group(1)
            if inside.parts[0] != entities.partition("_")[0]:
                return None
            return BidsFile(root, inside.as_posix(), entities)
    return None


def make_links(out: Path, roots: Iterable[Path]) -> dict[Path, str]:
    """Names the datasets that a derivative dataset is of: raw, raw2, ...

    Names that its description gives already are kept.

    Raises:
        InputError: If the folder is a dataset that `predict` did not write.
    """
    links = _known_links(out)
    found = {}
    for root in dict.fromkeys(roots):
        target = _relative(root, out)
        names = [name for name, link in links.items() if link == target]
        if not names:
            number = len(links) + 1
            names = [f"raw{number}" if number > 1 else "raw"]
            links[names[0]] = target
        found[root] = names[0]
    return found


def write_description(out: Path, links: Mapping[Path, str]) -> None:
    """Writes what makes a folder a derivative dataset.

    Raises:
        InputError: If the folder cannot be written.
    """
    known = _known_links(out)
    known |= {name: _relative(root, out) for root, name in links.items()}
    description = {
        "Name": "Events found by eegkd",
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "DatasetLinks": dict(sorted(known.items())),
        "GeneratedBy": [{"Name": PROGRAM, "Version": versions()["eegkd"]}],
    }
    dois = sorted(filter(None, (_doi(_there(out, link)) for link in known.values())))
    if dois:
        description["SourceDatasets"] = [{"DOI": doi} for doi in dois]
    write_atomic(out / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    for name, content in _BESIDE.items():
        if not (out / name).exists():
            write_atomic(out / name, content)


def _known_links(out: Path) -> dict[str, str]:
    """Returns the links of an earlier call."""
    if not (out / DESCRIPTION).exists():
        return {}
    found = _read(out / DESCRIPTION)
    by, links = found.get("GeneratedBy"), found.get("DatasetLinks")
    first = by[0] if isinstance(by, list) and by else None
    ours = isinstance(first, dict) and first.get("Name") == PROGRAM
    if not ours or not isinstance(links, dict):
        raise InputError(
            f"{out} is a dataset that `eegkd predict` did not write ({DESCRIPTION} "
            "names another program, or none). Choose another --out, such as "
            f"{out / 'derivatives' / PROGRAM}."
        )
    return {str(name): str(link) for name, link in links.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _doi(root: Path) -> str:
    doi = _read(root / DESCRIPTION).get("DatasetDOI")
    return doi if isinstance(doi, str) else ""


def _there(out: Path, link: str) -> Path:
    """Returns the folder of a link; that which holds the link need not exist."""
    return Path(os.path.normpath(out.absolute() / link))


def _relative(root: Path, out: Path) -> str:
    """Returns where a dataset lies, seen from another: "." for itself."""
    try:
        return Path(os.path.relpath(root, out.absolute())).as_posix()
    except ValueError:  # Another drive of Windows.
        return root.as_uri()
