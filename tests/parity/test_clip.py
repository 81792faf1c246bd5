"""CLIP against transformers, at random perturbed weights, layer by layer."""

import dataclasses

import jax
import numpy as np
import pytest

from eegkd.models import Clip, ClipVision, load_pretrained
from tests.support import vlm_models
from tests.support.vlm_models import relative_error, torch

pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(2, 28, 28, 3)).astype(np.float32)
LAYERS = {"layers_out": (0, 1)}


def theirs(pixels):
    return torch.tensor(pixels.transpose(0, 3, 1, 2))


def check_layers(got, hidden, mask=None):
    names = ["embed", "block_0", "block_1", "block_2"]
    for name, want in zip(names, hidden, strict=True):
        ours = got["tokens" if name == "block_2" else name]
        assert relative_error(ours, want, mask) < 1e-5, name


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_every_layer_of_the_vision_tower_agrees(activation, tmp_path):
    model = vlm_models.clip_vision(hidden_act=activation)
    model.save_pretrained(tmp_path)
    module, variables = load_pretrained("clip", tmp_path, **LAYERS)
    assert isinstance(module, ClipVision)
    with torch.no_grad():
        want = model(theirs(PIXELS), output_hidden_states=True)
    with jax.default_matmul_precision("float32"):
        got = jax.jit(module.apply)(variables, PIXELS)
    check_layers(got, want.hidden_states)
    assert relative_error(got["tokens"], want.last_hidden_state) < 1e-5
    assert relative_error(got["pooled"], want.pooler_output) < 1e-5


@pytest.mark.parametrize("end", [7, 2])
def test_both_towers_and_their_logits_agree(end, tmp_path):
    model = vlm_models.clip(eos_token_id=end)
    model.save_pretrained(tmp_path)
    module, variables = load_pretrained("clip", tmp_path)
    assert isinstance(module, Clip)
    cfg = dataclasses.replace(
        module.cfg,
        vision=dataclasses.replace(module.cfg.vision, **LAYERS),
        text=dataclasses.replace(module.cfg.text, **LAYERS),
    )
    ids = RNG.integers(8, 60, (3, 9))
    lengths = [9, 5, 7]
    mask = np.arange(9) < np.array(lengths)[:, None]
    ids[~mask] = 0
    # Once as published since 2023, once as before: then the highest id is pooled.
    ids[np.arange(3), np.array(lengths) - 1] = 59 if end == 2 else end
    with torch.no_grad():
        want = model(
            input_ids=torch.tensor(ids),
            pixel_values=theirs(PIXELS),
            attention_mask=torch.tensor(mask.astype(np.int64)),
        )
        text = model.text_model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            output_hidden_states=True,
        )
    with jax.default_matmul_precision("float32"):
        got = jax.jit(Clip(cfg).apply)(variables, PIXELS, ids, mask)
    tower = {name[5:]: got[name] for name in got if name.startswith("text_")}
    # Of theirs the last is before the norm, of ours `tokens` is after it.
    tokens = tower.pop("tokens")
    for name, hidden in zip(
        ("embed", "block_0", "block_1"), text.hidden_states[:3], strict=True
    ):
        assert relative_error(tower[name], hidden, mask) < 1e-5, name
    assert relative_error(tokens, text.last_hidden_state, mask) < 1e-5
    assert relative_error(got["text_pooled"], text.pooler_output) < 1e-5
    assert relative_error(got["image"], want.image_embeds) < 1e-5
    assert relative_error(got["text"], want.text_embeds) < 1e-5
    assert relative_error(got["logits"], want.logits_per_image) < 1e-5
