"""The harness finds what it is made to find, and calls nothing else a fault."""

import json
from random import Random

import pytest

from tests.fuzz import formats, mutations
from tests.fuzz.damage import changed, damage
from tests.fuzz.planted import FAULTS
from tests.fuzz.runner import Runner, failures, figures
from tests.fuzz.serve import Outcome


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("fuzz"), "tests.fuzz.planted", 1.0)
    yield runner
    runner.close()


def test_damage_is_refused_and_sound_input_read(runner):
    found = runner.run("careful", range(40))
    assert not failures(found)
    assert {x.kind for x in found} == {"read", "refused"}
    assert any(not x.damage for x in found)


@pytest.mark.parametrize(("name", "kind"), FAULTS.items())
def test_a_planted_fault_is_found(runner, name, kind):
    seeds = range(40)
    found = (runner.attempt(name, seed) for seed in seeds)
    first = next(x for x in found if x.failed)
    assert first.kind == kind, first.words
    assert f"python -m tests.fuzz.runner {name} {first.seed}" in failures([first])
    # It works on, in a new process where the old one ended.
    assert not failures(runner.run("careful", [0, 1]))


def test_figures_are_a_line_a_target():
    rows = [Outcome("a", 0, "read", 1.0, 5_000_000), Outcome("a", 1, "hang", 2.0)]
    line = "a 2 0 1 1 2.00 5"
    assert " ".join(figures(rows).splitlines()[1].split()) == line


@pytest.mark.parametrize("change", mutations.BLIND)
def test_blind_damage_follows_from_the_seed(change):
    for content in (b"", b"a", bytes(range(256)) * 20):
        results = [change(content, Random(seed)) for seed in (1, 1, 2)]
        assert results[0] == results[1]
        assert isinstance(results[2], bytes)


@pytest.mark.parametrize(
    "change",
    [
        *(mutations.json_value, mutations.csv_cell, mutations.text_line),
        *(mutations.words, formats.edf_field, formats.npy_array, formats.zip_member),
        *(formats.deflated, formats.safetensors_header, formats.safetensors_values),
        *(formats.pickled, formats.resealed(mutations.json_value)),
    ],
)
def test_damage_by_format_takes_any_content(change):
    sound = json.dumps({"a": [1, {"b": "c"}], "d": 2.5}).encode()
    for content in (b"", b"a", bytes(9), sound, b"a=1\nb=2\n", bytes(range(256)) * 3):
        for seed in range(20):
            assert isinstance(changed(change, content, Random(seed)), bytes)


def test_damage_stays_in_its_folder(tmp_path):
    (tmp_path / "beside").write_bytes(b"a")
    for seed in range(50):
        place = tmp_path / str(seed)
        place.mkdir()
        for name in ("a.json", "b"):
            (place / name).write_bytes(b"{}")
        damage(place, {"*.json": (mutations.json_value,)}, Random(seed))
        assert (place / "b").read_bytes() == b"{}"
    assert (tmp_path / "beside").read_bytes() == b"a"
