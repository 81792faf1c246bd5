"""One door a kind of file: no module reads JSON, arrays or weights past it."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "eegkd"
READERS = {
    # A round trip through JSON is no file.
    r"\bjson\.loads?\((?!json\.dumps)": {
        "host/json_file.py": "the door",
        "pipeline/folder.py": "lines of a log, whose last may be cut",
        "deploy/latency.py": "what a process of ours prints",
    },
    r"\bnp\.load\(": {
        "host/arrays.py": "the door",
        "deploy/latency.py": "a file that a process of ours wrote",
    },
    r"(?<!\w)load_file\(": {"convert/safetensors.py": "the door"},
    r"\btorch\.load\(": {"convert/files.py": "the door"},
}
"""Calls that read files, and the modules that may make them."""


@pytest.mark.parametrize("call", READERS)
def test_files_are_read_through_their_door(call):
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(call, path.read_text())
    }
    assert found == set(READERS[call])
