"""The wheel and the source distribution: what they hold; that they work elsewhere."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

from tests.support.processes import ROOT

LEFT_OUT = (".git", ".*cache*", "*.egg-info", "__pycache__", "build", "dist", "runs")


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds both from a copy of the project; returns their paths."""
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "build", "--outdir", place]
    try:
        setuptools = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        setuptools = "0"
    if int(setuptools.partition(".")[0]) >= 77:  # Or build fetches one.
        command.append("--no-isolation")
    run(*command, source)
    (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
    return wheel, sdist


def project_files(*folders):
    """Lists the files of the project that a distribution should hold."""
    found = [p for name in folders for p in (ROOT / name).rglob("*") if p.is_file()]
    return {
        p.relative_to(ROOT).as_posix()
        for p in found
        if p.suffix != ".pyc" and not any(x.endswith("cache__") for x in p.parts)
    }


@pytest.mark.slow
def test_the_wheel_is_one_package_with_all_its_files(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        about = next(n for n in names if n.endswith("/METADATA"))
        metadata = wheel.read(about).decode()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == project_files("eegkd")
    for line in ("License-Expression: Apache-2.0", "Classifier: Typing :: Typed"):
        assert line in metadata
    assert "Author: The eegkd developers" in metadata


@pytest.mark.slow
def test_the_source_distribution_is_the_whole_project(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = project_files("eegkd", "tests", "experiments", "notebooks", "docs")
    wanted |= {"README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"}
    assert wanted | {"LICENSE", "constraints.txt"} <= names


@pytest.mark.slow
def test_both_pass_the_checks_of_an_index(built):
    said = run(sys.executable, "-m", "twine", "check", "--strict", *built)
    assert said.count("PASSED") == 2


@pytest.mark.nightly
def test_both_work_in_an_environment_of_their_own(built, tmp_path):
    """The wheel by its commands; from the source distribution, its tests."""
    wheel, sdist = built
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    there = {"cwd": tmp_path, "env": clean}
    constraints = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", *constraints, f"{wheel}[test]", **there)
    assert "usage: eegkd" in run(python, "-m", "eegkd", "--help", **there)
    run(python, "-m", "eegkd", "quickstart", "--epochs", "1", "--out", "run", **there)
    assert (tmp_path / "run" / "results.json").stat().st_size
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("eegkd-*/")
    shutil.rmtree(source / "eegkd")  # Those that are installed are tested.
    run(python, "-m", "pytest", "-q", "-x", "tests/commands", **there | {"cwd": source})
