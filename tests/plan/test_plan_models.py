"""What models cost, by their shapes: counts that are published, operations, memory."""

import json

import jax
import pytest

from eegkd.cli import main
from eegkd.errors import InputError
from eegkd.plan.account import plan_model
from eegkd.plan.catalogue import NAMES, LoraOptions, ModelPlan, get_model
from eegkd.plan.costs import trace_model
from eegkd.plan.parts import count_groups, count_model_parts
from eegkd.systems.entry import names

VISION = 303_507_456
SMALL = {"batch_size": 2, "length": 1280}
WHOLE = {
    "clip-vit-large-patch14-336": {"vision": VISION},
    "vicuna-7b": {"language": 6_738_415_616},
    "vicuna-13b": {"language": 13_015_864_320},
    "qwen2-0.5b": {"language": 494_032_768},
    "qwen2-1.5b": {"language": 1_543_714_304},
    "llava-1.5-7b": {
        "vision": VISION,
        "projector": 20_979_712,
        "language": 6_738_415_616,
    },
    "llava-1.5-13b": {
        "vision": VISION,
        "projector": 31_467_520,
        "language": 13_015_864_320,
    },
    "llava-1.6-7b": {
        "vision": VISION,
        "projector": 20_979_712,
        "newline": 4096,
        "language": 6_738_415_616,
    },
}


def groups_of(name, rank):
    options = ModelPlan(lora=LoraOptions(rank=rank), **SMALL)
    model, traced = trace_model(name, options)
    parts = count_model_parts(traced.variables, model.group)
    return count_groups(parts), sum(part.parameters for part in parts if part.trained)


def test_every_name_of_the_issue_is_known():
    assert set(NAMES) == set(WHOLE)


@pytest.mark.parametrize("name", WHOLE)
def test_counts_are_the_published_ones(name):
    found, trained = groups_of(name, 0)
    assert found == WHOLE[name]
    assert trained == sum(found.values()) - (VISION if "llava" in name else 0)


@pytest.mark.parametrize(
    ("name", "rank", "adapters"),
    [
        ("vicuna-13b", 128, 500_695_040),
        ("vicuna-7b", 128, 319_815_680),
        ("llava-1.5-13b", 128, 500_695_040),
        ("qwen2-1.5b", 64, 73_859_072),
        # 24 layers of 4 x (1024 + 1024) and 2 x (1024 + 4096), times the rank.
        ("clip-vit-large-patch14-336", 8, 24 * 8 * (4 * 2048 + 2 * 5120)),
    ],
)
def test_adapters_are_beside_the_layers_linears(name, rank, adapters):
    found, trained = groups_of(name, rank)
    assert found == WHOLE[name] | {"lora": adapters}
    assert trained == adapters + found.get("projector", 0)


@pytest.fixture(scope="module")
def tuned():
    options = ModelPlan(lora=LoraOptions(rank=64), batch_size=8, length=512)
    return plan_model("qwen2-1.5b", options)


def test_operations_are_two_a_weight_and_token(tuned):
    """Forward 2 N, backward through frozen weights 2 N more; remat the forward again.

    The rest are attention's products, softmaxes, norms and adapters.
    """
    tokens, flops = 8 * 512, tuned["flops"]
    # The tied table is the head's weight too.
    weights = 1_543_714_304
    assert 1.0 < flops["forward"] / (2 * weights * tokens) < 1.2
    adapters = 73_859_072
    needed = flops["step_without_recomputation"]
    assert needed < flops["step"] < 1.6 * needed
    assert 4 * weights + 6 * adapters < needed / tokens < 1.25 * 4 * weights
    per_token = flops["decode_token"] / 8
    assert 1.0 < per_token / (2 * (weights + adapters)) < 1.1


def test_memory_is_weights_gradients_and_two_moments(tuned):
    memory, trained = tuned["memory"], tuned["trained"]
    assert memory["parameters"] == memory["gradients"] == 4 * trained
    assert 0 <= memory["optimiser"] - 8 * trained < 200
    assert memory["frozen"] == 2 * 1_543_714_304
    cache = tuned["kv_cache"]
    assert cache["bytes_per_token"] == 2 * 28 * 2 * 128 * 2
    assert cache["bytes"] == 8 * 512 * cache["bytes_per_token"]
    kept = tuned["memory_estimate"]["between_layers"]
    tokens = 8 * 512 * 1536 * 2
    # What goes into each of 28 layers; the last norm keeps three arrays in float32.
    assert 28 * tokens <= kept < 36 * tokens
    total = sum(memory.values()) + sum(tuned["memory_estimate"].values())
    assert tuned["memory_bytes"] == total


@pytest.mark.slow
def test_devices_divide_what_is_cut(tuned):
    options = ModelPlan(
        lora=LoraOptions(rank=64),
        batch_size=8,
        length=512,
        devices=8,
        model_axis=2,
        fully_sharded=True,
        chip="H100",
    )
    cut = plan_model("qwen2-1.5b", options)
    assert cut["parameters"] == tuned["parameters"]
    assert cut["flops"] == tuned["flops"]
    assert cut["cut_by_shape"] == {}
    assert cut["cut_along"] == ["model", "data"]
    # Adapters' sides that are not cut over heads are cut over the data axis alone.
    for name, most in (
        ("frozen", 1.01 / 8),
        ("parameters", 1 / 4),
        ("optimiser", 1 / 4),
    ):
        ratio = cut["memory"][name] / tuned["memory"][name]
        assert 1 / 8 <= ratio < most, name
    assert cut["kv_cache"]["bytes"] == tuned["kv_cache"]["bytes"] // 8
    assert cut["memory_estimate"]["gathered"] > 0
    assert cut["fits"]


@pytest.mark.slow
def test_without_recomputation_more_is_kept(tuned):
    options = ModelPlan(
        lora=LoraOptions(rank=64), batch_size=8, length=512, remat="none"
    )
    plan = plan_model("qwen2-1.5b", options)
    assert plan["flops"]["step"] == tuned["flops"]["step_without_recomputation"]
    kept = "between_layers"
    assert plan["memory_estimate"][kept] > 5 * tuned["memory_estimate"][kept]
    assert plan["memory_estimate"]["one_layer"] == 0


def test_a_page_has_as_many_visual_tokens_as_llava_gives_it():
    page = {"batch_size": 1, "image": (1700, 2200)}
    model = get_model("llava-1.6-7b", ModelPlan(length=4096, **page))
    assert model.visual_tokens == 2438
    with pytest.raises(InputError, match="--length is to be longer"):
        get_model("llava-1.6-7b", ModelPlan(length=2048, **page))


@pytest.mark.slow
def test_the_verb_prints_json_and_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    args = ["plan", "qwen2-0.5b", "--lora.rank", "4", "--length", "32"]
    args += ["--batch_size", "3"]
    assert main([*args, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["groups"] == {"lora": plan["trained"], "language": 494_032_768}
    assert main([*args, "--devices", "3", "--fully_sharded", "--chip", "A100"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "qwen2-0.5b, LoRA of rank 4: 3 examples of 32 positions" in said
    # What the table cannot cut is told.
    assert "frozen/layers/query/kernel: 896 is no multiple of 3" in said
    assert "lora/language/layers" in said
    assert "fits A100 │ yes" in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vicuna-70b"], "no system or model 'vicuna-70b'"),
        (["vicuna-70b"], "Did you mean 'vicuna-7b'?"),
        (["--chip", "H100"], "qwen2-0.5b, qwen2-1.5b, llava-1.5-7b"),
        (["vicuna-7b", "--devices", "3"], "--batch_size 8 cannot be split over 3"),
        (["vicuna-7b", "--lora.rank", "-1"], "--lora.rank is at least 0"),
        (["qwen2-0.5b", "--chip", "B9", "--length", "8"], "--chip is one of"),
        (
            ["qwen2-0.5b", "--lora.rank", "2", "--lora.targets", "heads/*"],
            "lora.targets heads/*: no linear layer",
        ),
    ],
)
def test_a_wrong_option_is_one_message(args, message, capsys):
    assert main(["plan", *args]) == 2
    assert message in capsys.readouterr().err


def test_help_names_all_that_has_a_plan(capsys):
    with pytest.raises(SystemExit) as end:
        main(["plan", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*names(), *NAMES))


def test_nothing_is_allocated():
    held = lambda: sum(x.nbytes for x in jax.live_arrays())
    before = held()
    trace_model("llava-1.5-13b", ModelPlan(length=1024))
    assert held() < before + 2**20
