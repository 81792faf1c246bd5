import json
import os
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eegkd.convert import load_bert, load_clip, load_decoder, load_llava
from eegkd.convert.hf_folder import read_headers
from eegkd.errors import InputError
from tests.support.llama_files import CONFIG, llama_tensors, write_shards

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "llama", llama_tensors())


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def values(folder):
    """Reads every parameter as a whole."""
    _, arrays = load_decoder(folder, "llama")
    return {
        "/".join(array.path): (
            np.stack([read() for read in array.parts])
            if array.is_stack
            else array.parts[0]()
        )
        for array in arrays
    }


def test_tensors_come_from_whichever_shard_holds_them(folder):
    tensors = llama_tensors()
    got = values(folder)
    want = [tensors[f"model.layers.{i}.mlp.up_proj.weight"].T for i in range(3)]
    np.testing.assert_array_equal(got["layers/up/kernel"], want)
    np.testing.assert_array_equal(got["lm_head/kernel"], tensors["lm_head.weight"].T)
    embedding = tensors["model.embed_tokens.weight"]
    np.testing.assert_array_equal(got["embed/embedding"], embedding)
    assert got["layers/key/kernel"].shape == (3, 8, 4)
    assert sum(value.size for value in got.values()) == sum(
        value.size for value in tensors.values()
    )


def test_shapes_are_known_before_values_are_read(folder):
    config, arrays = load_decoder(folder, "llama")
    got = values(folder)
    assert {"/".join(a.path): a.shape for a in arrays} == {
        name: value.shape for name, value in got.items()
    }
    assert config["head_dim"] == 2
    assert config["rope_theta"] == 500
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(InputError, match="download it again"):
        arrays[0].parts[0]()


def test_one_file_or_files_without_an_index_are_the_same(folder, tmp_path):
    want = values(folder)
    (folder / INDEX).unlink()
    one = tmp_path / "one"
    write_shards(one, llama_tensors(), shards=1)
    (one / INDEX).unlink()
    (one / "model-00001-of-00001.safetensors").rename(one / "model.safetensors")
    # Another file that is no part of the model.
    save_file({"other": np.zeros(3, np.float32)}, one / "consolidated.safetensors")
    for place in (folder, one):
        for name, value in values(place).items():
            np.testing.assert_array_equal(value, want[name])


def test_everything_wrong_with_files_is_said_at_once(folder):
    shard = folder / SHARD
    tensors = load_file(shard)
    lost = next(iter(tensors))
    del tensors[lost]
    tensors["model.extra.weight"] = np.zeros(3, np.float32)
    tensors["model.norm.weight"] = np.zeros(9, np.float32)
    save_file(tensors, shard)
    gone = folder / "model-00001-of-00003.safetensors"
    cut = folder / "model-00003-of-00003.safetensors"
    held = list(load_file(gone)) + list(load_file(cut))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-16])
    with pytest.raises(InputError) as error:
        load_decoder(folder, "llama")
    said = str(error.value)
    for part in (
        "shard model-00001-of-00003.safetensors is missing",
        "model-00003-of-00003.safetensors is damaged or cut short",
        f"{INDEX} names {lost}, which {SHARD} lacks",
        "unexpected model.extra.weight",
        "model.norm.weight has shape (9,), not (8,)",
    ):
        assert part in said
    # What the files explain is not said again of each tensor.
    assert not any(f"missing {name}" in said for name in [lost, *held])


def test_every_tensor_that_differs_is_named(tmp_path):
    tensors = llama_tensors()
    del tensors["model.layers.2.mlp.up_proj.weight"]
    tensors["model.layers.3.mlp.up_proj.weight"] = np.zeros((12, 8), np.float32)
    tensors["model.norm.weight"] = np.zeros(8, np.int8)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(1, np.float32)
    folder = write_shards(tmp_path, tensors)
    with pytest.raises(InputError) as error:
        load_decoder(folder, "llama")
    said = str(error.value)
    assert "missing model.layers.2.mlp.up_proj.weight" in said
    assert "unexpected model.layers.3.mlp.up_proj.weight" in said
    assert "model.norm.weight is stored as I8, not as" in said
    assert "inv_freq" not in said
    assert str(folder) in said


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = {
        "post_layernorm.bias": np.zeros(768, np.float32),
        "vision_model.post_layernorm.bias": np.zeros(768, np.float32),
    }
    folder = write_shards(tmp_path, tensors, {"model_type": "clip_vision_model"})
    with pytest.raises(InputError, match="are one parameter"):
        load_clip(folder)


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"model_type": "mistral"}, ["model_type has to be 'llama'; got 'mistral'"]),
        (
            {"hidden_act": "gelu", "num_hidden_layers": "3", "rms_norm_eps": 0},
            ["hidden_act", "num_hidden_layers", "'3'", "rms_norm_eps"],
        ),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, ["rope_scaling", "linear"]),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e5}},
            ["rope_parameters asks for 'llama3'"],
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary"]),
        ({"attention_bias": True}, ["attention_bias has to be False"]),
        ({"mlp_bias": True}, ["mlp_bias has to be False"]),
        ({"num_key_value_heads": 3}, ["3 does not divide 4"]),
    ],
)
def test_other_architectures_are_refused(folder, fields, messages):
    change(folder / "config.json", **fields)
    with pytest.raises(InputError) as error:
        load_decoder(folder, "llama")
    assert all(message in str(error.value) for message in messages)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize("where", ["top", "rope_parameters", "absent"])
def test_theta_is_found_where_versions_write_it(folder, where):
    theta = {"top": 7.0, "rope_parameters": None, "absent": None}[where]
    change(folder / "config.json", rope_theta=theta)
    if where == "rope_parameters":
        rope = {"rope_type": "default", "rope_theta": 7.0}
        change(folder / "config.json", rope_parameters=rope)
    config, _ = load_decoder(folder, "llama")
    assert config["rope_theta"] == (1e4 if where == "absent" else 7)


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"use_sliding_window": True, "max_window_layers": 2}, True),
        ({"use_sliding_window": True, "max_window_layers": 3}, False),
        ({"use_sliding_window": False, "max_window_layers": 0}, False),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"] * 3}, True),
        ({"use_sliding_window": True, "layer_types": ["full_attention"] * 3}, False),
        (
            {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 99},
            False,
        ),
    ],
)
def test_a_window_is_refused_where_it_would_act(tmp_path, fields, is_refused):
    config = CONFIG | {"model_type": "qwen2", "max_position_embeddings": 64}
    biases = {
        f"model.layers.{i}.self_attn.{name}_proj.bias": np.zeros(n, np.float32)
        for i in range(3)
        for name, n in (("q", 8), ("k", 4), ("v", 4))
    }
    config |= {"sliding_window": 32} | fields
    folder = write_shards(tmp_path, llama_tensors() | biases, config)
    if is_refused:
        with pytest.raises(InputError, match="window of 32 tokens"):
            load_decoder(folder, "qwen2")
    else:
        assert load_decoder(folder, "qwen2")[0]["qkv_bias"]


def test_tied_heads_have_to_be_equal(tmp_path):
    tensors, config = llama_tensors(), CONFIG | {"tie_word_embeddings": True}
    with pytest.raises(InputError, match="lm_head.weight has other values"):
        load_decoder(write_shards(tmp_path / "a", tensors, config), "llama")
    same = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    del tensors["lm_head.weight"]
    for place, held in {"b": same, "c": tensors}.items():
        _, arrays = load_decoder(write_shards(tmp_path / place, held, config), "llama")
        assert ("lm_head", "kernel") not in {array.path for array in arrays}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / INDEX).write_text("{"), "index.json: it is not JSON"),
        (
            lambda f: (f / INDEX).write_text('{"weight_map": []}'),
            "weight_map is a list",
        ),
        (
            lambda f: (f / INDEX).write_text('{"weight_map": {"a": "../b"}}'),
            "names no file of the folder",
        ),
        (lambda f: (f / "config.json").unlink(), "config.json: no readable file"),
        (
            lambda f: change(f / "config.json", num_hidden_layers=10**9),
            "1,000,000,000 layers by config.json, and 30 tensors in all",
        ),
        (
            lambda f: ((f / SHARD).unlink(), os.mkfifo(f / SHARD)),
            f"{SHARD} is damaged .*it is no regular file",
        ),
    ],
)
def test_broken_folders_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        load_decoder(folder, "llama")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="download model.safetensors, or all shards"):
        read_headers(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="saved anew with save_pretrained"):
        read_headers(tmp_path)


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (
            {"model_type": "llava"},
            ["vision_config is missing", "text_config is missing"],
        ),
        (
            {
                "model_type": "llava_next",
                "vision_config": {"model_type": "siglip_vision_model"},
                "text_config": {"model_type": "mistral"},
                "vision_feature_select_strategy": "full",
                "vision_feature_layer": [-2, -5],
                "image_grid_pinpoints": [3],
            },
            [
                "vision_config.model_type has to be 'clip_vision_model'",
                "text_config.model_type has to be 'llama' or 'qwen2'; got 'mistral'",
                "vision_feature_select_strategy",
                "vision_feature_layer",
                "image_grid_pinpoints",
            ],
        ),
    ],
)
def test_other_llavas_are_refused(tmp_path, config, messages):
    write_shards(tmp_path, {"a": np.zeros(1, np.float32)}, config, shards=1)
    with pytest.raises(InputError) as error:
        load_llava(tmp_path)
    assert all(message in str(error.value) for message in messages)


@pytest.mark.parametrize(
    ("load", "found", "cure"),
    [
        (partial(load_decoder, model="llama"), "qwen2", r'load_pretrained\("qwen2"'),
        (partial(load_decoder, model="qwen2"), "bert", r'load_pretrained\("bert"'),
        (load_llava, "llama", r'load_pretrained\("llama"'),
        (load_clip, "llava_next", r'load_pretrained\("llava"'),
        (load_bert, "clip", r'load_pretrained\("clip"'),
        (load_clip, "siglip", "known type: bert, clip,"),
        (partial(load_decoder, model="llama"), None, "known type: bert, clip,"),
    ],
)
def test_a_folder_of_another_model_says_what_takes_it(tmp_path, load, found, cure):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": found}))
    message = f"config.json: model_type has to be .*; got {found!r}: .*{cure}"
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_a_tower_that_is_not_there_is_refused(tmp_path):
    config = {"model_type": "clip_text_model", "hidden_act": "relu"}
    write_shards(tmp_path, {"a": np.zeros(1, np.float32)}, config, shards=1)
    with pytest.raises(InputError, match="of text alone, and vision is asked: leave"):
        load_clip(tmp_path, "vision")
    with pytest.raises(InputError, match="part='image': .* parts both, vision, text"):
        load_clip(tmp_path, "image")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="hidden_act has to be 'quick_gelu' or 'gelu'"):
        load_clip(tmp_path)


@pytest.mark.parametrize("wrap", ["_orig_mod.{}", "module._orig_mod.{}", "module.{}"])
def test_wrappers_of_pytorch_are_no_part_of_names(tmp_path, wrap):
    tensors = llama_tensors()
    plain = write_shards(tmp_path / "plain", tensors)
    wrapped = {wrap.format(name): array for name, array in tensors.items()}
    again = values(write_shards(tmp_path / "wrapped", wrapped))
    for name, array in values(plain).items():
        np.testing.assert_array_equal(again[name], array)
    inside = {n.replace("model.", "model._orig_mod."): a for n, a in tensors.items()}
    assert values(write_shards(tmp_path / "inside", inside)).keys() == again.keys()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_when_they_are_read(tmp_path, value):
    tensors = llama_tensors(dtype=np.float16)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 2] = value
    folder = write_shards(tmp_path / "llama", tensors)
    with pytest.raises(InputError, match=rf"safetensors: {name}\[3, 2\] is"):
        values(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not JSON that is read"),
        ('{"weight_map": {"a": 3}}', "weight_map.a is 3, not a text"),
        ("{}", "weight_map is missing"),
        ("[]", "it is a list of 0, not an object"),
    ],
)
def test_an_index_of_another_shape_is_refused(folder, text, said):
    (folder / INDEX).write_text(text)
    with pytest.raises(InputError, match=rf"index\.json: .*{said}"):
        read_headers(folder)
