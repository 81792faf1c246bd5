import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.convert import load_cbramod, load_labram, read_weights
from eegkd.errors import InputError
from eegkd.models import PUBLISHED, licences_of, load_pretrained
from tests.support.foundation_files import (
    LAYERS,
    by_braindecode,
    cbramod_tensors,
    labram_tensors,
)

LOADERS = ((cbramod_tensors, load_cbramod), (labram_tensors, load_labram))


def write(path, tensors, config=None):
    save_file(tensors, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def same(a, b):
    assert [path for path, _ in a] == [path for path, _ in b]
    for (_, one), (_, other) in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def test_cbramod_fits_the_module_with_or_without_its_last_layer(tmp_path):
    write(tmp_path, cbramod_tensors(), {"nhead": 4})
    for reconstruct in (True, False):
        module, variables = load_pretrained(
            "cbramod", tmp_path, groups=2, num_patches=1, reconstruct=reconstruct
        )
        x = np.zeros((1, 19, 200), np.float32)
        wanted = jax.eval_shape(module.init, jax.random.key(0), x)
        assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, wanted)
    assert module.cfg.num_heads == 4
    assert module.cfg.depth == LAYERS
    kernel = variables["params"]["layers"]["spatial"]["qkv"]["kernel"]
    want = cbramod_tensors()["encoder.layers.1.self_attn_s.in_proj_weight"].T
    np.testing.assert_array_equal(kernel[1], want)


def test_cbramod_of_a_fine_tuned_file_has_prefixes_and_heads(tmp_path):
    config, plain = load_cbramod(write(tmp_path, cbramod_tensors()))
    tuned = {f"module.backbone.{name}": a for name, a in cbramod_tensors().items()}
    tuned |= {"module.classifier.1.weight": np.zeros((2, 3), np.float32)}
    again, pairs = load_cbramod(write(tmp_path, tuned) / "model.safetensors")
    assert config == again
    same(plain, pairs)


def test_labram_s_two_layouts_give_the_same_pairs(tmp_path):
    config, ours = load_labram(write(tmp_path, labram_tensors()))
    assert (config["pool"], config["max_patches"]) == ("mean", 5)
    tensors = by_braindecode(labram_tensors())
    tensors["final_layer.weight"] = np.zeros((2, 100), np.float32)
    settings = {"sfreq": 200, "n_times": 600, "chs_info": [{"ch_name": "FZ"}]}
    theirs, pairs = load_labram(write(tmp_path, tensors, settings))
    same(ours, pairs)
    assert theirs == config | {"channels": ("FZ",), "num_patches": 3}
    module, variables = load_pretrained("labram", tmp_path)
    assert module.grid == (1, 3)
    x = np.zeros((1, 1, 600), np.float32)
    wanted = jax.eval_shape(module.init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, wanted)


def test_labram_takes_a_class_token_where_only_its_norm_is_there(tmp_path):
    config, _ = load_labram(write(tmp_path, labram_tensors(norm="norm")))
    assert config["pool"] == "cls"


def test_labram_of_pretraining_starts_with_a_fresh_norm(tmp_path):
    tensors = labram_tensors(norm="norm") | {"lm_head.weight": np.ones((9, 100))}
    tensors["mask_token"] = np.ones((1, 1, 100))
    whole = {f"student.{name}": a.astype(np.float32) for name, a in tensors.items()}
    whole |= {"projection_head.0.bias": np.ones(3, np.float32)}
    config, pairs = load_labram(write(tmp_path, whole))
    assert config["pool"] == "mean"
    np.testing.assert_array_equal(dict(pairs)["norm", "scale"], np.ones(100))
    np.testing.assert_array_equal(dict(pairs)["norm", "bias"], np.zeros(100))


@pytest.mark.parametrize(
    ("load", "tensors", "missing"),
    [
        (load_cbramod, cbramod_tensors, "encoder.layers.1.linear2.bias"),
        (load_labram, labram_tensors, "blocks.1.attn.proj.bias"),
    ],
)
def test_every_difference_is_named_at_once(tmp_path, load, tensors, missing):
    weights = tensors()
    del weights[missing]
    weights["extra.weight"] = np.zeros(3, np.float32)
    wrong = next(name for name in weights if name.endswith("norm1.weight"))
    weights[wrong] = np.zeros(7, np.float32)
    with pytest.raises(InputError) as error:
        load(write(tmp_path, weights))
    for part in (
        f"missing {missing}",
        "unexpected extra.weight",
        f"{wrong} has shape (7,)",
        str(tmp_path),
        "Download them again",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("load", "config", "message"),
    [
        (load_cbramod, {"sfreq": 256}, "config.json: sfreq is 256, .*200"),
        (load_cbramod, {"patch_size": 100}, "patch_size is 100"),
        (
            load_cbramod,
            {"channels_kernel_stride_padding_norm": [[2, 49, 20, 24, [1, 2]]]},
            "channels_kernel_stride_padding_norm",
        ),
        (load_labram, {"learned_patcher": True}, "learned_patcher is True"),
    ],
)
def test_another_architecture_is_refused(tmp_path, load, config, message):
    tensors = cbramod_tensors() if load is load_cbramod else labram_tensors()
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, tensors, config))


def test_places_without_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing: no such file or folder.*download"):
        read_weights(tmp_path / "nothing")
    with pytest.raises(InputError, match="no PyTorch file either"):
        read_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"notes.txt: .txt suffix is not known"):
        read_weights(tmp_path / "notes.txt")
    for name in ("a.pth", "b.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="2 PyTorch files; name the file"):
        read_weights(tmp_path)


def test_more_patches_than_the_file_knows_are_refused(tmp_path):
    write(tmp_path, labram_tensors())
    with pytest.raises(
        InputError, match=r"5 patches.*num_patches=8.*--data.window_s 5"
    ):
        load_pretrained("labram", tmp_path, num_patches=8)
    with pytest.raises(InputError, match="no embedding for Xy"):
        load_pretrained("labram", tmp_path, num_patches=2, channels=("Cz", "Xy"))


def test_every_model_s_weights_have_a_licence():
    for model in PUBLISHED:
        entries = licences_of(model)
        assert entries
        assert all(entry.source and entry.licence for entry in entries)
    assert {entry.licence for entry in licences_of("cbramod")} == {
        "none stated",
        "BSD-3-Clause",
    }
    assert licences_of("gpt") == ()


@pytest.mark.parametrize(
    "prefix",
    ["model.", "_orig_mod.", "module._orig_mod.", "model._orig_mod.module.", "module."],
)
def test_what_wrappers_put_before_names_is_stripped(tmp_path, prefix):
    for tensors, load in (
        (cbramod_tensors, load_cbramod),
        (labram_tensors, load_labram),
    ):
        config, plain = load(write(tmp_path, tensors()))
        wrapped = {f"{prefix}{name}": a for name, a in tensors().items()}
        again, pairs = load(write(tmp_path, wrapped))
        assert config == again
        same(plain, pairs)


def test_a_student_of_pre_training_is_found_behind_wrappers(tmp_path):
    kept = {n: a for n, a in labram_tensors().items() if not n.startswith("fc_norm")}
    student = {f"student.{name}": a for name, a in kept.items()}
    config, pairs = load_labram(write(tmp_path, student))
    wrapped = {f"_orig_mod.module.{name}": a for name, a in student.items()}
    again, others = load_labram(write(tmp_path, wrapped))
    assert config == again
    same(pairs, others)


def test_two_names_of_one_tensor_are_refused(tmp_path):
    tensors = cbramod_tensors()
    name = next(iter(tensors))
    write(tmp_path, tensors | {f"model.{name}": tensors[name]})
    with pytest.raises(InputError, match=f"are one parameter, {name}"):
        load_cbramod(tmp_path)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.nan, "f4"), (-np.inf, "f4"), (1e300, "f8"), (np.inf, "f2")],
)
def test_weights_that_are_no_finite_float32_are_refused(tmp_path, value, kind):
    for tensors, load in (
        (cbramod_tensors, load_cbramod),
        (labram_tensors, load_labram),
    ):
        found = tensors()
        name = next(name for name, a in found.items() if a.ndim == 2)
        found[name] = found[name].astype(kind)
        found[name][1, 2] = value
        with pytest.raises(InputError, match=rf"{name}\[1, 2\] is .*no finite float32"):
            load(write(tmp_path, found))


def test_a_large_float64_is_what_float32_makes_of_it(tmp_path):
    tensors = cbramod_tensors()
    name = next(iter(tensors))
    wide = tensors | {name: tensors[name].astype(np.float64)}
    same(
        load_cbramod(write(tmp_path, wide))[1],
        load_cbramod(write(tmp_path, tensors))[1],
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("chs_info", [{"name": "FP1"}], r"chs_info\[0\].ch_name is missing"),
        ("chs_info", "FP1", "chs_info is 'FP1', not a list of values or null"),
        ("n_times", "400", "n_times is '400', not a whole number or null"),
        ("sfreq", [200], "sfreq is a list of 1, not a number or null"),
        ("nhead", 2.5, "nhead is 2.5, not a whole number"),
        (
            "channels_kernel_stride_padding_norm",
            [[25, 49]],
            r"norm\[0\] is a list of 2",
        ),
    ],
)
def test_a_config_of_other_types_is_named_with_its_field(tmp_path, field, value, said):
    write(tmp_path, cbramod_tensors(), {field: value})
    with pytest.raises(InputError, match=rf"config\.json: .*{said}"):
        load_cbramod(tmp_path)
