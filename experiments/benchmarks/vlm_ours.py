"""The library's decoder, generation and LoRA step, for the benchmark of decoders."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.models import LoraConfig, apply_params, find_linears
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.models.generate import Decoding, generate
from eegkd.systems.language import language_system
from eegkd.train import OptimConfig, init_state, make_optimiser, make_train_step
from eegkd.train.parallel import single
from experiments.benchmarks import vlm_cases as cases
from experiments.benchmarks.vlm_cases import ALPHA, RANK, Case

Call = Callable[[], Any]


def make_module(case: Case, *, remat: str = "none") -> Decoder:
    """Builds the decoder."""
    qwen2 = case.family == "qwen2"
    return Decoder(
        DecoderConfig(
            vocab_size=case.vocab_size,
            dim=case.dim,
            depth=case.depth,
            num_heads=case.num_heads,
            num_kv_heads=case.num_kv_heads,
            head_dim=case.head_dim,
            ffn_dim=case.ffn_dim,
            qkv_bias=qwen2,
            tied=qwen2,
            remat=remat,  # pyright: ignore[reportArgumentType]
        )
    )


def make_call(case: Case, way: str) -> tuple[Call, dict[str, float]]:
    """Compiles one way; returns what runs it to its end, and facts about it."""
    if way in (cases.STEP, cases.REMAT):
        return make_step(case, remat="full" if way == cases.REMAT else "none")
    module = make_module(case)
    params = jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 2), int))["params"]
    ready = jax.block_until_ready
    if way == cases.GENERATE:
        ids = jnp.asarray(cases.make_ids(case, case.prompt))
        call = lambda: ready(
            generate(module, params, ids, decoding=Decoding(max_new_tokens=case.new))
        )
        start = time.perf_counter()
        call()
        return call, {"first_call_s": time.perf_counter() - start}
    length = case.prompt if way == cases.PREFILL else cases.middle(case)
    room = case.prompt + case.new if way == cases.PREFILL else None
    ids = jnp.asarray(cases.make_ids(case, length))

    def read(params: Any, ids: Any) -> Any:
        out = apply_params(module, params, ids, room=room, logits="last")
        return jnp.argmax(out["logits"], axis=-1), out.get("cache")

    start = time.perf_counter()
    compiled = jax.jit(read).lower(params, ids).compile()
    facts = {"compile_s": time.perf_counter() - start}
    return lambda: ready(compiled(params, ids)), facts


def make_step(case: Case, *, remat: str) -> tuple[Call, dict[str, float]]:
    """Compiles a training step of adapters beside frozen weights, on one batch."""
    module = make_module(case, remat=remat)
    ids = cases.make_ids(case, case.length)
    lora = LoraConfig(rank=RANK, alpha=ALPHA)
    system = language_system(module, lora=lora, linears=find_linears(module, ids))
    (stage,) = system.stages
    batch = {"ids": ids, "labels": ids, "mask": np.ones(ids.shape, bool)}
    variables = jax.jit(lambda given: stage.init(jax.random.key(0), given, {}))(batch)
    optim = OptimConfig(
        clip_norm=0.0, warmup_fraction=0.0, schedule="constant", weight_decay=0.0
    )
    tx = make_optimiser(optim, 1000)
    runner = single(lambda axis: make_train_step(system, "student", tx, axis_name=axis))
    state = runner.place(init_state(stage, variables, tx, jax.random.key(1)))
    frozen, sent = runner.place(variables.frozen), runner.put(batch)
    start = time.perf_counter()
    compiled = runner.step.lower(state, frozen, {}, sent).compile()  # type: ignore[attr-defined]
    facts = {"compile_s": time.perf_counter() - start}
    if (memory := compiled.memory_analysis()) is not None:
        facts["temporary_mb"] = memory.temp_size_in_bytes / 2**20

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, frozen, {}, sent)
        return float(metrics["loss"])

    return step, facts
