"""Small vision-language models of transformers, at random perturbed weights."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IMAGE, PATCH, VOCAB = 28, 14, 60
IMAGE_ID = 59
GRIDS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "attn_implementation": "eager",
}
VISION = {**TOWER, "image_size": IMAGE, "patch_size": PATCH, "projection_dim": 24}
TEXT = {
    **TOWER,
    "hidden_size": 40,
    "vocab_size": VOCAB,
    "max_position_embeddings": 12,
    "projection_dim": 24,
    "eos_token_id": 7,
}
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


def perturbed(model):
    """Unit scales, zero biases and small embeddings would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def clip(**text):
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=TEXT | text, vision_config=VISION, projection_dim=24
    )
    return perturbed(transformers.CLIPModel(config))


def clip_vision(**options):
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**VISION | options)
    return perturbed(transformers.CLIPVisionModel(config))


def llava(name, **options):
    """Builds one of the two, "Llava" or "LlavaNext"."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**LLAMA),
        image_token_index=IMAGE_ID,
        **options,
    )
    return perturbed(getattr(transformers, f"{name}ForConditionalGeneration")(config))


llava_15 = functools.partial(llava, "Llava")
llava_16 = functools.partial(llava, "LlavaNext", image_grid_pinpoints=GRIDS)


def relative_error(got, want, mask=None):
    """The largest error, as a part of the largest value wanted."""
    got, want = np.asarray(got), want.detach().numpy()
    assert got.shape == want.shape
    error = np.abs(got - want)
    if mask is not None:
        error, want = error[mask], want[mask]
    return error.max() / np.abs(want).max()
