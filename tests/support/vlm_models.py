"""Small vision-language models of transformers, at random perturbed weights."""

import functools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

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
    parts = {
        "vision_config": transformers.CLIPVisionConfig(**VISION),
        "text_config": transformers.LlamaConfig(**LLAMA),
        "image_token_index": IMAGE_ID,
    }
    config = getattr(transformers, f"{name}Config")(**parts | options)
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


def make_tokenizer(text):
    """Bytes as tokens, those of a text merged; a space belongs to the word after it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([text] * 9, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def write_folders(old, new, adapters):
    """Writes whole folders of LLaVA 1.5 and 1.6, and adapters of the first."""
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    from eegkd.models import (
        LoraConfig,
        init_adapters,
        load_pretrained,
        save_adapters,
    )

    tokenizer = make_tokenizer("USER: Is this page normal? ASSISTANT: yes no")
    text = transformers.LlamaConfig(**LLAMA | {"vocab_size": len(tokenizer)})
    own = tokenizer.convert_tokens_to_ids("<image>")
    llava("Llava", text_config=text, image_token_index=own).save_pretrained(old)
    llava(
        "LlavaNext", text_config=text, image_token_index=own, image_grid_pinpoints=GRIDS
    ).save_pretrained(new)
    tokenizer.save_pretrained(new)
    LlavaNextImageProcessorPil(
        size={"shortest_edge": IMAGE},
        crop_size={"height": IMAGE, "width": IMAGE},
        image_grid_pinpoints=GRIDS,
    ).save_pretrained(new)
    module, variables = load_pretrained("llava", old)
    paths = ["/".join(path[:-1]) for path in flatten_dict(variables["params"])]
    lora = LoraConfig(rank=2, targets=("*layers/query",))
    made = init_adapters(jax.random.key(0), variables["params"], paths, lora)
    save_adapters(adapters, module, made, lora)
