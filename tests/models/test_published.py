"""A published model is one file, which says how it is loaded, saved and planned."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.errors import InputError
from eegkd.models import PUBLISHED, licences_of, load_pretrained, published
from eegkd.models.saving import save_pretrained
from eegkd.plan.catalogue import ModelPlan, get_model

TOY = """
import dataclasses
from flax import linen as nn
from eegkd.convert.safetensors import read_safetensors
from eegkd.convert.tables import Family, Weight
from eegkd.models.published.base import (
    Planned, Published, WeightsLicence, make_config, make_tree,
)

@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig:
    dim: int = 2
    remat: str = "none"
    dtype: object = None
    param_dtype: object = None

class Toy(nn.Module):
    cfg: ToyConfig

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.cfg.dim, name="out", use_bias=False)(x)

def load(path, **options):
    arrays = read_safetensors(path)
    pairs = [(("out", "kernel"), arrays["toy.weight"])]
    cfg = make_config(ToyConfig, {"dim": pairs[0][1].shape[1]}, options)
    return Toy(cfg), {"params": make_tree(pairs)}

def table(cfg):
    return (Weight(("out", "kernel"), "toy.weight", (3, cfg["dim"])),)

PUBLISHED = Published(
    load,
    licences=(WeightsLicence("example.org/toy", "MIT"),),
    families={Toy: Family(table, lambda cfg: {"model_type": "toy"})},
    plan={"toy-4": Planned(ToyConfig(dim=4), Toy, group="toy", own=("out",))},
)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Adds a file, and its place in the tuple."""
    (tmp_path / "toy_net.py").write_text(TOY)
    path = [*published.__path__, str(tmp_path)]
    monkeypatch.setattr(published, "__path__", path)
    module = importlib.import_module("eegkd.models.published.toy_net")
    monkeypatch.setitem(PUBLISHED, "toy_net", module.PUBLISHED)
    return module


def test_a_model_of_one_file_is_loaded_saved_licensed_and_planned(toy, tmp_path):
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_file({"toy.weight": weight}, tmp_path / "toy.safetensors")
    module, variables = load_pretrained("toy_net", tmp_path / "toy.safetensors")
    assert module.cfg.dim == 2
    y = module.apply(variables, jnp.eye(3))
    np.testing.assert_array_equal(y, weight)
    save_pretrained(tmp_path / "saved", module, variables)
    _, again = load_pretrained("toy_net", tmp_path / "saved" / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    (licence,) = licences_of("toy_net")
    assert licence.source == "example.org/toy"
    known = get_model("toy-4", ModelPlan(dtype="float32"))
    assert (known.module.cfg.dim, known.group) == (4, "toy")
    assert known.trained == (("out",), None)


def test_an_unknown_name_lists_those_that_are_there(toy, tmp_path):
    with pytest.raises(InputError, match="there is bert, .*qwen2, toy_net.*'toy_net'"):
        load_pretrained("toynet", tmp_path)
    save_file({"toy.weight": np.eye(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="ToyConfig has no field width"):
        load_pretrained("toy_net", tmp_path / "a.safetensors", width=3)


def test_every_module_of_the_folder_is_in_the_tuple():
    folder = published.__path__[0]
    files = {path.stem for path in Path(folder).glob("*.py")}
    assert set(PUBLISHED) == files - {"__init__", "base"}


def test_sizes_that_plans_know_have_one_name_each():
    names = [name for model in PUBLISHED.values() for name in model.plan]
    assert len(names) == len(set(names)) > 5
