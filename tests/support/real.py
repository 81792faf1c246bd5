"""Where the real recordings lie, for the tests that need them."""

import os
from pathlib import Path

import pytest


def real(*parts: str) -> Path:
    """Returns a path below `EEGKD_REAL_DATA`; skips the test where it is missing."""
    root = os.environ.get("EEGKD_REAL_DATA")
    if not root:
        pytest.skip("EEGKD_REAL_DATA names no folder of real recordings")
    path = Path(root, *parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not among the real recordings")
    return path
