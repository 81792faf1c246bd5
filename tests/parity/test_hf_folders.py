"""Files of transformers: what it writes is read, and what we write it reads."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.convert import read_config
from eegkd.models import (
    Clip,
    ClipText,
    ClipVision,
    Decoder,
    Llava,
    VisualProjector,
    load_pretrained,
    save_pretrained,
)
from tests.support.vlm_models import LLAMA, TEXT, VISION, clip, llava, perturbed

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

GRIDS = [[28, 56], [56, 28], [56, 56]]


def decoder(kind, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**LLAMA | options)
    return perturbed(getattr(transformers, f"{kind}ForCausalLM")(config))


def tower(kind, sizes):
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig if "Text" in kind else None
    config = (config or transformers.CLIPVisionConfig)(**sizes)
    return perturbed(getattr(transformers, kind)(config))


def llava_of_qwen2(**options):
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.Qwen2Config(**LLAMA | options),
        image_token_index=59,
        vision_feature_layer=2,
    )
    return perturbed(transformers.LlavaForConditionalGeneration(config))


MAKE = {
    "clip": clip,
    "clip vision": lambda: tower("CLIPVisionModel", VISION),
    "clip vision projected": lambda: tower("CLIPVisionModelWithProjection", VISION),
    "clip text": lambda: tower("CLIPTextModel", TEXT | {"hidden_act": "gelu"}),
    "llama": lambda: decoder("Llama", head_dim=6),
    "llama tied": lambda: decoder("Llama", tie_word_embeddings=True),
    "qwen2": lambda: decoder("Qwen2", rope_theta=5e5),
    "qwen2 tied": lambda: decoder("Qwen2", tie_word_embeddings=True),
    "llava 1.5": lambda: llava("Llava"),
    "llava 1.5 qwen2": llava_of_qwen2,
    "llava 1.5 qwen2 tied": lambda: llava_of_qwen2(tie_word_embeddings=True),
    "llava 1.6": lambda: llava("LlavaNext", image_grid_pinpoints=GRIDS),
}


@pytest.fixture(scope="module", params=MAKE)
def written(request, tmp_path_factory):
    """A model, its name, a folder as on disk (in shards) and one as in memory."""
    model = MAKE[request.param]()
    disk, memory = (tmp_path_factory.mktemp(name) for name in ("disk", "memory"))
    model.save_pretrained(disk, max_shard_size=20_000)
    assert len(list(disk.glob("*.safetensors"))) > 2
    state = {name: t.clone() for name, t in model.state_dict().items()}
    safetensors.save_file(state, memory / "model.safetensors")
    model.config.save_pretrained(memory)
    return model, request.param.split()[0], disk, memory


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_both_layouts_are_the_same_parameters(written):
    model, name, disk, memory = written
    module, variables = load_pretrained(name, disk)
    again, same = load_pretrained(name, memory)
    assert module == again
    assert_equal(same, variables)
    # A single tower comes without its projection.
    projected = isinstance(model, transformers.CLIPVisionModelWithProjection)
    left_out = model.visual_projection.weight.numel() if projected else 0
    counted = sum(leaf.size for leaf in jax.tree.leaves(variables)) + left_out
    assert counted == sum(p.numel() for p in model.parameters())


def test_what_we_write_is_the_same_model(written, tmp_path):
    model, name, disk, _ = written
    kind = type(model)
    if kind is transformers.CLIPVisionModelWithProjection:
        kind = transformers.CLIPVisionModel
    module, variables = load_pretrained(name, disk)
    save_pretrained(
        tmp_path, module, variables, config=read_config(disk), max_shard_bytes=20_000
    )
    got, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info[what]
    want = kind.from_pretrained(disk).state_dict()
    assert got.state_dict().keys() == want.keys()
    for key, tensor in got.state_dict().items():
        assert torch.equal(tensor, want[key]), key
    again = load_pretrained(name, tmp_path)
    assert again[0] == module
    assert_equal(again[1], variables)


def flat(config, stem=""):
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{stem}{name}.")
        else:
            yield f"{stem}{name}", value


def test_what_config_we_write_is_the_same(written, tmp_path):
    model, name, disk, _ = written
    module, variables = load_pretrained(name, disk)
    save_pretrained(tmp_path, module, variables, config=read_config(disk))
    config = type(model.config)
    got, want = (
        dict(flat(config.from_pretrained(folder).to_dict()))
        for folder in (tmp_path, disk)
    )
    differ = {name for name in got if name in want and got[name] != want[name]}
    # Which class of transformers a part would be by itself.
    assert {name.rpartition(".")[2] for name in differ} <= {"architectures"}
    assert not want.keys() - got.keys()


def parts_of(model, module, params):
    """Lists modules of theirs with ours and its parameters."""
    if isinstance(module, Llava):
        theirs, cfg = model.model, module.cfg
        return [
            (theirs.vision_tower, ClipVision(cfg.vision), params["vision"]),
            (theirs.multi_modal_projector, VisualProjector(32), params["projector"]),
            (theirs.language_model, Decoder(cfg.language), params["language"]),
        ]
    if isinstance(module, Clip):
        return [
            (model.vision_model, ClipVision(module.cfg.vision), params["vision"]),
            (model.text_model, ClipText(module.cfg.text), params["text"]),
        ]
    inner = getattr(model, "vision_model", None) or getattr(model, "model", model)
    return [(inner, module, params)]


def test_layers_are_not_mistaken_for_each_other(written):
    """Reading a wrong name, and writing the same wrong one, would not be seen above."""
    model, name, disk, _ = written
    module, variables = load_pretrained(name, disk)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, TEXT["vocab_size"], (2, 7))
    pixels = rng.normal(size=(2, 28, 28, 3)).astype(np.float32)
    given = {ClipVision: pixels, VisualProjector: pixels.reshape(2, 7, -1)[..., :32]}
    for theirs, ours, params in parts_of(model, module, variables["params"]):
        x = given.get(type(ours), ids)
        with torch.no_grad():
            want = theirs(torch.tensor(np.moveaxis(x, 3, 1) if x.ndim == 4 else x))
        with jax.default_matmul_precision("float32"):
            got = jax.jit(ours.apply)({"params": params}, x)
        if not isinstance(want, torch.Tensor):
            got, want = got["tokens"], want.last_hidden_state
        error = np.abs(got - want.numpy()).max()
        assert error < 1e-5 * float(want.abs().max()), type(ours).__name__


def test_a_tower_is_taken_from_both(tmp_path):
    model = clip()
    model.save_pretrained(tmp_path)
    _, both = load_pretrained("clip", tmp_path)
    for part in ("vision", "text"):
        _, one = load_pretrained("clip", tmp_path, part=part)
        assert_equal(one["params"], both["params"][part])


def test_parts_take_options_of_their_own(tmp_path):
    llava("Llava").save_pretrained(tmp_path)
    module, _ = load_pretrained(
        "llava", tmp_path, dtype=jnp.bfloat16, language={"layers_out": (0,)}
    )
    assert module.cfg.language.layers_out == (0,)
    assert module.cfg.vision.dtype == module.cfg.language.dtype == jnp.bfloat16


@pytest.mark.parametrize("wide", ["float16", "bfloat16", "float32"])
def test_types_are_cast_as_pytorch_casts_them(tmp_path, wide):
    model = decoder("Llama")
    model.to(getattr(torch, wide)).save_pretrained(tmp_path)
    _, variables = load_pretrained("llama", tmp_path, dtype=jnp.bfloat16)
    tensor = model.model.layers[1].mlp.up_proj.weight.to(torch.bfloat16).float()
    got = variables["params"]["layers"]["up"]["kernel"]
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(got[1]), tensor.detach().numpy().T)
    module, wide_variables = load_pretrained("llama", tmp_path)
    save_pretrained(tmp_path / "again", module, variables)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "again")
    assert again.dtype == torch.bfloat16
    assert {x.dtype for x in jax.tree.leaves(wide_variables)} == {np.dtype("float32")}


def test_older_files_are_read(tmp_path):
    """Names and fields as the published checkpoints have them."""
    model = llava("Llava")
    model.save_pretrained(tmp_path / "new")
    config = read_config(tmp_path / "new")
    state = safetensors.load_file(tmp_path / "new" / "model.safetensors")
    old = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in state.items()
    }
    layer = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    old[layer] = torch.zeros(4)
    vision = "vision_tower.vision_model.embeddings.position_ids"
    old[vision] = torch.arange(5)[None]
    (tmp_path / "old").mkdir()
    safetensors.save_file(old, tmp_path / "old" / "model.safetensors")
    text = config["text_config"]
    theta = text.pop("rope_parameters")["rope_theta"]
    text |= {"rope_theta": theta, "rope_scaling": None, "torch_dtype": "float16"}
    del text["head_dim"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    new, old = (load_pretrained("llava", tmp_path / name) for name in ("new", "old"))
    assert new[0] == old[0]
    assert_equal(new[1], old[1])
