"""Weights that a run keeps by their hash alone."""

import jax
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.host.sealed import hash_file
from eegkd.pipeline.folder import open_run
from eegkd.systems import Weights
from eegkd.systems.batches import shapes_of
from eegkd.systems.loaded import (
    loaded_weights,
    system_weights,
    weight_hashes,
    with_loaded,
    without_loaded,
)
from eegkd.typing import Variables
from tests.support import toy
from tests.support.presets import TINY

TREE = {"layer": {"w": np.ones((2, 3), np.float32)}, "unused": np.zeros(5)}
KEPT = {"layer": TREE["layer"]}


def test_loaded_weights_are_left_out_and_put_back():
    variables = Variables({"head": np.ones(2)}, {"loaded": KEPT, "own": 1.0}, {})
    saved = without_loaded(variables)
    assert saved.frozen == {"own": 1.0}
    assert without_loaded(saved) == saved
    wanted = jax.eval_shape(lambda: variables)
    again = with_loaded(saved, TREE, wanted)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, variables))
    bare = jax.eval_shape(lambda: saved)
    assert with_loaded(saved, TREE, bare) is saved


def test_a_run_knows_the_files_of_its_weights(tmp_path):
    for name in ("b.safetensors", "a.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    weights = loaded_weights("model", str(tmp_path), TREE)
    assert weights.shapes() == shapes_of(TREE)
    assert weights.read() is TREE
    hashes = weight_hashes(weights)
    assert hashes == {
        name: hash_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors")
    }
    (tmp_path / "a.safetensors").write_text("another")
    assert weight_hashes(weights) != hashes
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b.safetensors is gone: .* of model"):
        weight_hashes(weights)


def test_a_run_with_other_weights_is_not_resumed(tmp_path):
    file = tmp_path / "lens.safetensors"
    file.write_text("a")
    system = toy.make_system()
    load = Weights("lens", (file,), lambda: shapes_of(TREE), lambda: TREE)
    system = system._replace(stages=(system.stages[0]._replace(load=load),))

    def record():
        return {
            "system": "toy",
            "run": TINY,
            "store": {"path": "", "fingerprint": "f"},
            "num_folds": 2,
            "variants": [],
            "weights": {"system": system_weights(system)},
        }

    assert record()["weights"]["system"]["teacher"]["model"] == "lens"
    open_run(tmp_path / "run", record())
    open_run(tmp_path / "run", record())
    file.write_text("b")
    with pytest.raises(InputError, match=r"other weights of lens .* lens.safetensors"):
        open_run(tmp_path / "run", record())
