"""The package as one installs it: its names, and that it starts."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import eegkd
from tests.support.processes import ROOT

UNTYPED = {
    "eegkd.data.synthetic.seizure.draw_windows": "its text is hashed into stores",
    "eegkd.data.windows.folds.FixedSplit": "scikit-learn has no types",
    "eegkd.data.windows.folds.FixedSplit.test_groups": "scikit-learn",
    "eegkd.data.windows.folds.RandomWindows": "scikit-learn",
    "eegkd.data.windows.folds.make_splitter": "scikit-learn",
    "eegkd.data.windows.stratify.IterativeFolds": "scikit-learn",
    "eegkd.evaluate.score_events": "timescoring has no types",
    "eegkd.evaluate.scoring.score_events": "timescoring",
    "eegkd.ops.head_products.head_average": "jax.custom_vjp",
    "eegkd.ops.head_products.head_scores": "jax.custom_vjp",
    "eegkd.ops.low_rank.low_rank_product": "jax.custom_vjp",
}
"""Public names whose types a checker does not know, and why."""

MODULES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "ott-jax": "ott",
    "scikit-learn": "sklearn",
}
"""What a distribution is imported as, where the names differ."""

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


@pytest.mark.parametrize("name", [x for x in eegkd.__all__ if x != "__version__"])
def test_a_part_shows_what_is_its_own(name):
    """`dir` lists what a part makes public, and its modules; helpers do not leak."""
    part = getattr(eegkd, name)
    public = {x for x in dir(part) if not x.startswith("_")}
    modules = {x.name for x in pkgutil.iter_modules(getattr(part, "__path__", []))}
    # The tests' own import hook leaves its name in some parts.
    assert public - modules - set(part.__all__) <= {"jaxtyping"}
    assert set(part.__all__) <= public
    own = {
        x
        for x, value in vars(part).items()
        if getattr(value, "__module__", "") == part.__name__ and not x.startswith("_")
    }
    assert own <= set(part.__all__)
    for each in part.__all__:
        getattr(part, each)


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


def test_what_is_required_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    text = "\n".join(path.read_text() for path in (ROOT / "eegkd").rglob("*.py"))
    found = set(re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE))
    idle = {n for n in names if MODULES.get(n, n.replace("-", "_")) not in found}
    # jax.export writes by it.
    assert idle == {"flatbuffers"}


@pytest.mark.slow
def test_the_types_of_public_names_are_known():
    options = ["--verifytypes", "eegkd", "--ignoreexternal", "--outputjson"]
    command = [sys.executable, "-m", "pyright", *options]
    # Without it pyright cannot see through the finder of an editable installation.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    found = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    public = [symbol for symbol in found if symbol["isExported"]]
    assert len(public) > 4000
    unknown = {symbol["name"] for symbol in public if not symbol["isTypeKnown"]}
    assert unknown == set(UNTYPED)
