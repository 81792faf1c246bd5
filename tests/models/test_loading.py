"""Weights of others on devices, and our models and adapters in others' files."""

import functools
import json
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from eegkd.convert import read_config
from eegkd.convert.hf_folder import LazyArray
from eegkd.errors import InputError
from eegkd.models import (
    ClipText,
    ClipTextConfig,
    ClipVisionConfig,
    DecoderConfig,
    Llava,
    LlavaConfig,
    LoraConfig,
    load_adapters,
    load_pretrained,
    save_adapters,
    save_pretrained,
)
from eegkd.models.loading import _of_layer, _write, load_tree
from eegkd.train.partition import partition_rule, shardings
from eegkd.train.sharding import AXIS, MODEL
from tests.support.llama_files import CONFIG, llama_tensors, write_shards

SIZES = {"dim": 8, "depth": 2, "num_heads": 2, "ffn_dim": 4}
VISION = ClipVisionConfig(**SIZES, image_size=4, patch_size=2)
SIZES |= {"vocab_size": 6, "num_kv_heads": 1, "head_dim": 4}
LORA = LoraConfig(rank=2, alpha=3.0, targets=("layers/query", "layers/down"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("llama"), llama_tensors())


@pytest.fixture(scope="module")
def loaded(folder):
    return load_pretrained("llama", folder)


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_parameters_fit_the_module(loaded):
    module, variables = loaded
    ids = jnp.zeros((1, 4), jnp.int32)
    wanted = jax.eval_shape(module.init, jax.random.key(0), ids)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, wanted)
    tensors = llama_tensors()
    want = [tensors[f"model.layers.{i}.self_attn.k_proj.weight"].T for i in range(3)]
    key = variables["params"]["layers"]["key"]["kernel"]
    np.testing.assert_array_equal(key, want)


def test_options_are_fields_of_the_config(folder):
    module, variables = load_pretrained(
        "llama", folder, dtype=jnp.bfloat16, layers_out=(-1,)
    )
    assert module.cfg.layers_out == (-1,)
    assert module.cfg.dtype == module.cfg.param_dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.bfloat16)
    }
    up = llama_tensors()["model.layers.1.mlp.up_proj.weight"].T
    want = up.astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        variables["params"]["layers"]["up"]["kernel"][1], want
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layer_out": (0,)},
            "DecoderConfig has no field layer_out. .*mean .layers_out",
        ),
        ({"attention": "flash"}, "attention is one of None, 'plain', .* got 'flash'"),
        ({"depth": 2}, r"layers/\S+ is \(3, 8\) in the files, and .* \(2, 8\)"),
        ({"tied": True}, "lm_head/kernel is .* by the options None: leave out"),
        ({"dtype": jnp.int8}, "dtype=int8 holds no weights: take float32"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained("llama", folder, **options)


@pytest.mark.parametrize("cfg", [DecoderConfig(), ClipVisionConfig()])
def test_policies_of_another_name_are_refused(cfg):
    # What checks types in the tests would be first to say so.
    object.__setattr__(cfg, "remat", "all")
    with pytest.raises(ValueError, match="remat is one of 'none', 'full', .*got 'all'"):
        cfg.__post_init__()


def test_options_of_a_part_say_where_they_belong(tmp_path):
    with pytest.raises(InputError, match="there is bert, .*Did you mean 'llama'"):
        load_pretrained("lama", tmp_path)
    cfg = LlavaConfig(vision=VISION, language=DecoderConfig(**SIZES))
    module = Llava(cfg)
    ids = jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), ids)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    save_pretrained(tmp_path, module, variables)
    way = r'give vision=\{"remat": ...\} or language=\{"remat": ...\}'
    with pytest.raises(InputError, match=f"LlavaConfig has no field remat. .*{way}"):
        load_pretrained("llava", tmp_path, remat="full")
    with pytest.raises(InputError, match="language is 'full', and has to list fields"):
        load_pretrained("llava", tmp_path, language="full")
    with pytest.raises(InputError, match="ClipVisionConfig has no field qkv_bias"):
        load_pretrained("llava", tmp_path, vision={"qkv_bias": True})
    loaded, _ = load_pretrained("llava", tmp_path, language={"remat": "full"})
    assert loaded.cfg.language.remat == "full"
    assert loaded.cfg.vision.remat == "none"


def test_half_precision_files_rise_unless_asked(tmp_path):
    tensors = llama_tensors(dtype=np.float16)
    _, variables = load_pretrained("llama", write_shards(tmp_path, tensors))
    norm = variables["params"]["norm"]["scale"]
    assert norm.dtype == jnp.float32
    np.testing.assert_array_equal(norm, tensors["model.norm.weight"])


def test_parameters_are_spread_as_asked(folder, loaded):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), (AXIS, MODEL))
    place = shardings(mesh, partition_rule(mesh, (MODEL, AXIS), min_size=0))
    _, variables = load_pretrained("llama", folder, shardings=place)
    assert_equal(variables, loaded[1])
    for path, leaf in flatten_dict(variables["params"]).items():
        assert leaf.sharding == place(path, leaf.shape), path
    gate = variables["params"]["layers"]["gate"]["kernel"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(3, 4, 6)}


def test_no_layer_is_read_while_another_is_held():
    made = []

    def read(i):
        assert not [ref for ref in made if ref() is not None]
        layer = np.full((2, 50), i, np.float64)
        made.append(weakref.ref(layer))
        return layer

    parts = tuple(functools.partial(read, i) for i in range(3))
    tree = load_tree([LazyArray(("a",), (3, 2, 50), "float64", parts, True)])
    assert len(made) == 3
    np.testing.assert_array_equal(tree["a"][:, 1, 0], [0, 1, 2])


@pytest.mark.optimised
@pytest.mark.parametrize("spread", [False, True])
def test_stacks_are_written_in_place(spread):
    mesh = Mesh(np.array(jax.devices()), ("model",))
    sharding = NamedSharding(mesh, PartitionSpec(None, None, "model"))
    sharding = sharding if spread else None
    stack = jax.ShapeDtypeStruct((64, 8, 16), jnp.bfloat16, sharding=sharding)
    part = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=_of_layer(sharding))
    memory = _write(sharding).lower(stack, part, 0).compile().memory_analysis()
    devices = len(jax.devices()) if spread else 1
    assert memory.alias_size_in_bytes == 64 * 8 * 16 * 2 // devices
    assert memory.temp_size_in_bytes <= 2 * 8 * 16 * 4


def test_saved_files_are_what_was_loaded(tmp_path, folder, loaded):
    module, variables = loaded
    save_pretrained(
        tmp_path / "a",
        module,
        variables,
        config={"pad_token_id": 5, "dtype": "float16"},
    )
    save_pretrained(tmp_path / "b", module, variables, max_shard_bytes=900)
    assert [p.name for p in (tmp_path / "a").glob("*.s*")] == ["model.safetensors"]
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    files = {p.name for p in (tmp_path / "b").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files
    assert len(files) > 3
    total = sum(tensor.nbytes for tensor in llama_tensors().values())
    assert index["metadata"]["total_size"] == total
    got = load_file(tmp_path / "a" / "model.safetensors")
    assert got.keys() == llama_tensors().keys()
    assert_equal(got, llama_tensors())
    again, same = load_pretrained("llama", tmp_path / "b")
    assert again.cfg == module.cfg
    assert_equal(same, variables)
    config = read_config(tmp_path / "a")
    assert config["pad_token_id"] == 5
    assert config["dtype"] == "float32"
    assert {**config, **CONFIG} == config


def test_weights_are_not_written_over(tmp_path, loaded):
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds weights already"):
        save_pretrained(tmp_path, *loaded)


def test_what_transformers_does_not_know_is_not_saved(tmp_path, loaded):
    module, variables = loaded
    with pytest.raises(ValueError, match="no Dense of ours; there is Clip"):
        save_pretrained(tmp_path, nn.Dense(3), {"params": {}})
    del (params := dict(variables["params"]))["norm"]
    with pytest.raises(ValueError, match="do not fit the config: norm/scale"):
        save_pretrained(tmp_path, module, {"params": params})


def test_a_tower_and_its_end_token_come_back(tmp_path):
    """Old files name an end token that no text has; the highest id is pooled there."""
    module = ClipText(
        ClipTextConfig(
            dim=8,
            depth=2,
            num_heads=2,
            ffn_dim=12,
            vocab_size=20,
            max_positions=6,
            eos_id=None,
        )
    )
    ids, rng = jnp.zeros((1, 3), jnp.int32), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        jax.eval_shape(module.init, jax.random.key(0), ids),
    )
    save_pretrained(tmp_path, module, variables)
    assert read_config(tmp_path)["eos_token_id"] == 2
    again, same = load_pretrained("clip", tmp_path)
    assert again == module
    assert_equal(same, variables)


def random_adapters(depth=3, rank=2):
    shapes = {"query": (8, 8), "down": (12, 8)}
    rng = np.random.default_rng(1)
    return {
        "layers": {
            name: {
                "lora_down": rng.normal(size=(depth, n, rank)).astype(np.float32),
                "lora_up": rng.normal(size=(depth, rank, m)).astype(np.float32),
            }
            for name, (n, m) in shapes.items()
        }
    }


def change(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_adapters_have_the_names_of_peft(tmp_path, loaded):
    module, adapters = loaded[0], random_adapters()
    save_adapters(tmp_path, module, adapters, LORA, base="vicuna")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    stem = "base_model.model.model.layers.1.mlp.down_proj"
    assert len(tensors) == 2 * 2 * 3
    want = adapters["layers"]["down"]["lora_down"][1].T
    np.testing.assert_array_equal(tensors[f"{stem}.lora_A.weight"], want)
    assert tensors[f"{stem}.lora_B.weight"].shape == (8, 2)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert (config["r"], config["lora_alpha"]) == (2, 3.0)
    assert config["base_model_name_or_path"] == "vicuna"
    found, same = load_adapters(tmp_path, module)
    assert sorted(found.targets) == sorted(LORA.targets)
    assert (found.rank, found.alpha) == (2, 3.0)
    assert_equal(same, adapters)


@pytest.mark.parametrize(
    "targets",
    [
        [
            "model.layers.0.mlp.down_proj",
            "1.mlp.down_proj",
            "2.mlp.down_proj",
            "q_proj",
        ],
        r".*layers\.\d+\.(self_attn\.q_proj|mlp\.down_proj)",
    ],
)
def test_targets_are_found_by_the_rules_of_peft(tmp_path, loaded, targets):
    save_adapters(tmp_path, loaded[0], random_adapters(), LORA)
    change(tmp_path, target_modules=targets)
    assert_equal(load_adapters(tmp_path, loaded[0])[1], random_adapters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"use_rslora": True}, "use_rslora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
        ({"some_new_option": 1}, "some_new_option is 1"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights has to be"),
        ({"peft_type": "IA3"}, "peft_type has to be 'LORA'; got 'IA3'"),
        ({"target_modules": ["0.mlp.down_proj"]}, "1 of 3 layers of layers/down"),
        ({"target_modules": ["c_attn"]}, "names no linear layer of this model: is it"),
        ({"lora_dropout": 1.0}, r"lora_dropout has to be in \[0, 1\); got 1.0"),
        ({"target_modules": None}, "names no layers"),
        ({"target_modules": "all-linear"}, "missing model.layers.0.self_attn.k_proj"),
        ({"r": 3}, r"has shape \(2, 8\), not \(3, 8\)"),
        ({"r": 0}, "r has to be a positive whole number"),
    ],
)
def test_other_adapters_are_refused(tmp_path, loaded, fields, message):
    save_adapters(tmp_path, loaded[0], random_adapters(), LORA)
    change(tmp_path, **fields)
    with pytest.raises(InputError, match=message):
        load_adapters(tmp_path, loaded[0])


def test_missing_adapter_files_are_refused(tmp_path, loaded):
    with pytest.raises(InputError, match="adapter_config.json: no readable file"):
        load_adapters(tmp_path, loaded[0])
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_adapters(tmp_path, loaded[0])
    save_adapters(tmp_path, loaded[0], random_adapters(), LORA)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="adapter_model.safetensors: no such file"):
        load_adapters(tmp_path, loaded[0])


def test_adapters_of_another_model_are_not_saved(tmp_path, loaded):
    wrong = {"layers": {"other": random_adapters()["layers"]["query"]}}
    with pytest.raises(ValueError, match="No linear layers of the model: layers/other"):
        save_adapters(tmp_path, loaded[0], wrong, LORA)
    with pytest.raises(
        ValueError, match="do not fit the config: layers/query/lora_down"
    ):
        save_adapters(tmp_path, loaded[0], random_adapters(rank=3), LORA)
