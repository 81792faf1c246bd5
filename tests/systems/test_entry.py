"""Systems are found by their packages and by entry points."""

import sys

import pytest

from eegkd.errors import InputError
from eegkd.systems.entry import Entry, find, names

TOY = """
from eegkd.systems import SystemConfig
from eegkd.systems.entry import Entry

ENTRY = Entry(SystemConfig, lambda config: None, {"small": {}})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs distributions of one module whose entry points name systems."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(distribution, points, source=TOY):
        about = tmp_path / f"{distribution}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (about / "entry_points.txt").write_text(f"[eegkd.systems]\n{lines}\n")
        (tmp_path / f"{distribution}.py").write_text(source)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("toy_"):
            del sys.modules[name]


def test_packages_are_systems_and_modules_are_not():
    assert {"distilclip_eeg", "dlink"} <= set(names())
    assert not {"batches", "entry", "bridge"} & set(names())
    with pytest.raises(InputError, match=r"no system 'dlnk': choose .*dlink"):
        find("dlnk")
    with pytest.raises(InputError, match="There is no system 'batches'"):
        find("batches")


def test_an_entry_point_is_a_system(install):
    install("toy_system", {"mine": "toy_system", "direct": "toy_system:ENTRY"})
    assert {"mine", "direct"} < set(names())
    assert isinstance(find("mine"), Entry)
    assert find("direct") is find("mine")


def test_a_bad_entry_point_is_named_when_it_is_asked_for(install):
    install("toy_bad", {"bad": "toy_bad", "gone": "toy_none"}, "import no_such_toy")
    install("toy_empty", {"empty": "toy_empty"}, "")
    install("toy_twin", {"dlink": "toy_twin"})
    assert {"bad", "gone", "empty"} < set(names())
    assert find("distilclip_eeg").presets
    for name, said in {
        "bad": r"system bad of .* toy_bad .*no_such_toy.*uninstall toy_bad",
        "gone": r"system gone .*toy_none",
        "empty": r"system empty has no ENTRY",
        "dlink": r"system dlink of .* toy_twin .*eegkd has taken",
    }.items():
        with pytest.raises(InputError, match=said):
            find(name)
