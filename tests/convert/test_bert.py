import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.convert import load_bert, read_safetensors
from eegkd.errors import InputError
from eegkd.models import load_pretrained
from tests.support.bert_files import CONFIG, tensors, write


def old_names(weights):
    """The layout of the first checkpoints, with the heads of pre-training."""
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in weights.items()
    }
    extra = {"cls.predictions.bias": np.zeros(20, np.float32)}
    ids = {"bert.embeddings.position_ids": np.arange(10)[None]}
    return renamed | extra | ids


def test_both_layouts_give_the_same_pairs(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    config, pairs = load_bert(write(tmp_path / "new", tensors()))
    _, old = load_bert(write(tmp_path / "old", old_names(tensors())))
    assert config["depth"] == 2
    assert config["pooler"]
    for (path, array), (old_path, old_array) in zip(pairs, old, strict=True):
        assert path == old_path
        np.testing.assert_array_equal(array, old_array)
    kernel = dict(pairs)["layers", "up", "kernel"]
    want = tensors()["encoder.layer.1.intermediate.dense.weight"].T
    np.testing.assert_array_equal(kernel[1], want)


@pytest.mark.parametrize("pooler", [True, False])
def test_load_pretrained_fits_the_module(tmp_path, pooler):
    module, variables = load_pretrained("bert", write(tmp_path, tensors(pooler)))
    ids = np.arange(6).reshape(2, 3)
    wanted = jax.eval_shape(module.init, jax.random.key(0), ids)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, wanted)
    out = jax.eval_shape(module.apply, variables, ids)
    assert ("pooled" in out) == pooler


def test_all_differences_are_named_in_one_message(tmp_path):
    weights = tensors()
    del weights["encoder.layer.1.output.dense.bias"]
    weights["extra.weight"] = np.zeros(3, np.float32)
    weights["embeddings.word_embeddings.weight"] = np.zeros((21, 8), np.float32)
    with pytest.raises(InputError) as error:
        load_bert(write(tmp_path, weights))
    for part in (
        "missing encoder.layer.1.output.dense.bias",
        "unexpected extra.weight",
        "(21, 8), not (20, 8)",
        str(tmp_path),
    ):
        assert part in str(error.value)


def test_float16_rises_and_shards_are_joined(tmp_path):
    weights = {k: v.astype(np.float16) for k, v in tensors().items()}
    names = sorted(weights)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for i, part in enumerate((names[:9], names[9:])):
        shard = {name: weights[name] for name in part}
        save_file(shard, tmp_path / f"model-{i}.safetensors")
    _, pairs = load_bert(tmp_path)
    assert {array.dtype for _, array in pairs} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: no readable file"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (
            lambda f: (f / "config.json").write_text("[]"),
            "it is a list of 0",
        ),
        (lambda f: (f / "config.json").write_text("{}"), "vocab_size.* are missing"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \*.safetensors file"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\x10"),
            "model.safetensors: .*Download it again",
        ),
        (
            lambda f: (f / "config.json").write_text(
                json.dumps(CONFIG | {"model_type": "roberta"})
            ),
            "model_type has to be 'bert'; got 'roberta'",
        ),
        (
            lambda f: (f / "config.json").write_text(
                json.dumps(CONFIG | {"hidden_act": "relu"})
            ),
            "hidden_act must be 'gelu'",
        ),
        *(
            (
                lambda f, fields=fields: (f / "config.json").write_text(
                    json.dumps(CONFIG | fields)
                ),
                message,
            )
            for fields, message in (
                ({"num_hidden_layers": 2.5}, "num_hidden_layers has to be a positive"),
                ({"hidden_size": "8"}, "hidden_size has to be a positive whole number"),
                ({"num_attention_heads": 3}, "3 does not divide 8"),
                ({"num_hidden_layers": 10**9}, "1,000,000,000 layers by config.json"),
                ({"layer_norm_eps": 1e308}, "layer_norm_eps has to be a positive"),
                ({"hidden_dropout_prob": 1.5}, "has to be a number in"),
            )
        ),
    ],
)
def test_bad_folders_are_refused(tmp_path, spoil, message):
    spoil(write(tmp_path, tensors()))
    with pytest.raises(InputError, match=message):
        load_bert(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path, tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="Download it again"):
        read_safetensors(tmp_path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Unknown model 'gpt'; there is bert"):
        load_pretrained("gpt", "nowhere")
