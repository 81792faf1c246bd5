"""What a file with a recording's suffix is, where it is no recording of its own.

Parts belong to the file that names them: FIF files to the one that continues in them,
segments of a WFDB record to its header, samples of BrainVision to the .vhdr. Names of
MNE-Python and BIDS say what else a FIF file or a copy is; an EDF+ file's header says
whether it holds any signal.
"""

import gzip
import re
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FIF = (".fif", ".fif.gz")
_EDF = (".edf", ".bdf")
_FIF_KINDS = {
    **dict.fromkeys(("epo", "epochs"), "epochs"),
    **dict.fromkeys(("eve", "events"), "events"),
    **dict.fromkeys(("ave", "evoked"), "averages"),
    **dict.fromkeys(("annot", "annotations"), "annotations"),
    **{"cov": "a covariance", "ica": "components", "proj": "projections"},
    **{"trans": "a transform", "fwd": "a forward solution", "inv": "an inverse"},
    **{"src": "a source space", "bem": "a head model", "sol": "a head model"},
    **{"dip": "dipoles", "tfr": "spectra", "psd": "spectra", "dig": "positions"},
}
"""Last word of a FIF file's name in MNE-Python -> its content, no recording."""
_FIF_WORD = re.compile(rf"[-_]({'|'.join(_FIF_KINDS)})\.fif(\.gz)?$", re.IGNORECASE)
_NUMBERED = re.compile(r"-(\d+)\.fif|[-_]split-(\d+)", re.IGNORECASE)
# Tags of the FIF format: references to other files, and the one that comes next.
_BLOCK_START, _REF_BLOCK, _ROLE, _FILE_NAME, _NEXT = 104, 118, 115, 118, 2
_TAG = struct.Struct(">iiii")
_ANNOTATIONS = (b"EDF Annotations", b"BDF Annotations")
_ROLE_WORDS = re.compile(
    r"[-_ .]?(psg|hypnogram|hyp|annotations?|annot|events?|stages|staging|scoring|"
    r"labels?)$",
    re.IGNORECASE,
)
_SLEEP_EDF = re.compile(r"((?:SC|ST)\d{4}[A-Z])[0-9A-Z]-(?:PSG|Hypnogram)", re.I)
_DERIVED = re.compile(r"_desc-[A-Za-z0-9]+")
_COPIES = ("derivatives", "sourcedata")


def bids_copies(root: Path, files: Iterable[Path]) -> dict[Path, str]:
    """Finds copies of recordings in a BIDS data set: file -> why it is left aside.

    They lie in its folders derivatives and sourcedata, or have a `_desc-` beside a file
    of the same name without it.
    """
    files = list(files)
    names = {path.name for path in files}
    is_bids = (root / "dataset_description.json").exists()
    found = {}
    for path in files:
        top = path.relative_to(root).parts[0]
        plain = _DERIVED.sub("", path.name)
        if is_bids and top in _COPIES:
            found[path] = f"a copy of recordings, in {top}"
        elif plain != path.name and plain in names:
            found[path] = f"derived from {plain}"
    return found


def what_else(files: Iterable[Path]) -> dict[Path, str]:
    """Finds FIF files that hold no recording: file -> its content."""
    matches = ((path, _FIF_WORD.search(path.name)) for path in files)
    return {path: f"{_FIF_KINDS[m[1].lower()]}" for path, m in matches if m}


def parts_of_others(files: Sequence[Path]) -> dict[Path, Path]:
    """Finds files that others name as their parts: part -> the file that names it.

    The samples of a .vhdr and segments of a .hea are read with it, as are the files
    that a FIF file continues in. A numbered FIF file that nothing leads to is a
    recording of its own.
    """
    known = {(path.parent, path.name.casefold()): path for path in files}
    found: dict[Path, Path] = {}
    numbered = {path.parent for path in files if _NUMBERED.search(path.name)}
    for path in files:
        name = path.name.lower()
        parts: Iterable[str] = ()
        if name.endswith(".vhdr"):
            parts = _brainvision_data(path)
        elif name.endswith(".hea"):
            parts = _wfdb_segments(path)
        elif name.endswith(_FIF) and path.parent in numbered:
            parts = _fif_continues(path)
        for part in parts:
            other = known.get((path.parent, part.casefold()))
            if other is not None and other != path:
                found[other] = path
    return found


def first_files(owners: Mapping[Path, Path]) -> dict[Path, list[Path]]:
    """Returns the parts of each recording, by the first file of all.

    Args:
        owners: Part -> the file that names it, which may be a part itself.
    """
    found: dict[Path, list[Path]] = {}
    for part, owner in sorted(owners.items()):
        seen = {part}
        while owner in owners and owner not in seen:
            seen.add(owner)
            owner = owners[owner]
        found.setdefault(owner, []).append(part)
    return found


def _brainvision_data(path: Path) -> Iterator[str]:
    """Yields names of a .vhdr's samples: its own, and the one that it states."""
    yield f"{path.stem}.eeg"
    for line in _lines(path):
        key, _, value = line.partition("=")
        if key.strip().lower() == "datafile":
            yield value.strip().replace("$b", path.stem)


def _wfdb_segments(path: Path) -> Iterator[str]:
    """Yields names of the headers of a record's segments, if it has any."""
    lines = [x for x in _lines(path) if x.strip() and not x.startswith("#")]
    first = lines[0].split()[0] if lines else ""
    if "/" in first:
        for line in lines[1:]:
            yield f"{line.split()[0]}.hea"


def _lines(path: Path) -> list[str]:
    """Returns the lines of a text header, which is never long."""
    with path.open("rb") as file:
        return file.read(1 << 20).decode("latin-1").splitlines()


def _fif_continues(path: Path) -> Iterator[str]:
    """Yields names of the files that a FIF file goes on in, as its references state.

    Tags are read one after the other; the first that leads back or nowhere ends it.
    """
    open_file: Any = gzip.open if path.name.lower().endswith(".gz") else open
    inside, role, position = False, 0, 0
    with open_file(path, "rb") as file:
        try:
            while len(head := file.read(_TAG.size)) == _TAG.size:
                kind, _, size, following = _TAG.unpack(head)
                if size < 0:
                    return
                if kind == _BLOCK_START or (inside and kind in (_ROLE, _FILE_NAME)):
                    data = file.read(min(size, 4096))
                    if kind == _BLOCK_START:
                        inside, role = data == struct.pack(">i", _REF_BLOCK), 0
                    elif kind == _ROLE:
                        role = int.from_bytes(data[:4], "big")
                    elif role == _NEXT:
                        yield data.decode("latin-1").rstrip("\0")
                start, position = position, following or position + _TAG.size + size
                if following < 0 or position <= start:
                    return
                file.seek(position)
        except (OSError, EOFError, zlib.error):
            return


def annotation_files(files: Iterable[Path]) -> dict[Path, bytes]:
    """Finds EDF+ and BDF+ files of annotations alone: file -> its date and time."""
    found = {}
    for path in files:
        if path.suffix.lower() in _EDF:
            with path.open("rb") as file:
                fixed = file.read(256)
                num = fixed[252:256].strip()
                labels = file.read(16 * int(num)) if num.isdigit() else b""
            cells = [labels[i : i + 16].strip() for i in range(0, len(labels), 16)]
            if cells and all(cell in _ANNOTATIONS for cell in cells):
                found[path] = fixed[168:184]
    return found


def pair_annotations(
    recordings: Iterable[Path], alone: Mapping[Path, bytes]
) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Finds the recording that each file of annotations belongs to.

    It is one in the same folder whose name is the same up to words such as PSG and
    Hypnogram (in Sleep-EDF: SC4001E0-PSG and SC4001EC-Hypnogram), if there is one
    alone and both begin at the same time.

    Returns:
        Recording -> its annotations; file without a recording -> why.
    """
    if not alone:
        return {}, {}
    near: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in recordings:
        if path.suffix.lower() in _EDF:
            near[path.parent, _shared_name(path)].append(path)
    counts = Counter((path.parent, _shared_name(path)) for path in alone)
    pairs, aside = {}, {}
    for path, start in alone.items():
        key = path.parent, _shared_name(path)
        if len(near[key]) != 1 or counts[key] != 1:
            aside[path] = "annotations alone, of no recording that its name tells"
            continue
        with near[key][0].open("rb") as file:
            same = file.read(256)[168:184] == start
        if same:
            pairs[near[key][0]] = path
        else:
            aside[path] = f"annotations, but {near[key][0].name} begins at another time"
    return pairs, aside


def _shared_name(path: Path) -> str:
    match = _SLEEP_EDF.fullmatch(path.stem)
    return (match[1] if match else _ROLE_WORDS.sub("", path.stem)).casefold()
