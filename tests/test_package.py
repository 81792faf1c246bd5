"""The package as one installs it: its names, and that it starts."""

import importlib
import subprocess
import sys
import tomllib

import eegkd
from tests.support.processes import ROOT

# What Windows lacks.
BARE = """
import sys
sys.modules |= dict.fromkeys(["resource", "fcntl", "pwd", "grp", "termios"])
import eegkd.host.atomic, eegkd.host.process, eegkd.host.signals
from eegkd.cli import VERBS
for verb in VERBS:
    __import__(f"eegkd.commands.{verb}")
"""


def test_every_public_name_exists_and_no_other_is_listed():
    assert dir(eegkd) == eegkd.__all__
    for name in eegkd.__all__:
        found = getattr(eegkd, name)
        if name != "__version__":
            assert found is importlib.import_module(f"eegkd.{name}")
    parts = {p.name for p in (ROOT / "eegkd").iterdir() if (p / "__init__.py").exists()}
    assert parts - {"commands"} <= set(eegkd.__all__)
    assert dir(eegkd.systems) == sorted(eegkd.systems.__all__)


def test_it_starts_as_a_module():
    command = [sys.executable, "-m", "eegkd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == eegkd.__version__
    bad = subprocess.run([*command[:3], "distil"], capture_output=True, check=False)
    assert bad.returncode == 2


def test_it_loads_where_the_system_is_no_posix():
    subprocess.run([sys.executable, "-c", BARE], check=True)


def test_one_version_and_one_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == eegkd.__version__
    assert project["tool"]["setuptools"]["packages"]["find"] == {"include": ["eegkd*"]}
    assert (ROOT / "eegkd" / "py.typed").is_file()
