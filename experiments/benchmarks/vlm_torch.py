"""The same decoders of transformers, and PEFT's adapters, in PyTorch."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from experiments.benchmarks import vlm_cases as cases
from experiments.benchmarks.vlm_cases import ALPHA, RANK, Case

Call = Callable[[], Any]
_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def missing(way: str) -> Iterator[str]:
    """Lists the packages that a way needs and that are not installed."""
    needed = ["torch", "transformers"]
    needed += ["peft"] if way in (cases.STEP, cases.REMAT) else []
    yield from (name for name in needed if importlib.util.find_spec(name) is None)


def make_model(case: Case) -> Any:
    """Builds the decoder with random weights."""
    import torch
    import transformers

    sizes = {
        "hidden_size": case.dim,
        "num_hidden_layers": case.depth,
        "num_attention_heads": case.num_heads,
        "num_key_value_heads": case.num_kv_heads,
        "intermediate_size": case.ffn_dim,
        "vocab_size": case.vocab_size,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": case.family == "qwen2",
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    if case.family == "qwen2":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def make_call(case: Case, way: str) -> tuple[Call, dict[str, float]]:
    """Builds one way; PyTorch compiles nothing."""
    import torch

    if way in (cases.STEP, cases.REMAT):
        return make_step(case, checkpointing=way == cases.REMAT), {}
    model = make_model(case).eval()
    length = cases.middle(case) if way == cases.RECOMPUTE else case.prompt
    ids = torch.from_numpy(cases.make_ids(case, length)).long()

    def read() -> Any:
        with torch.inference_mode():
            keep = way == cases.PREFILL
            out = model(ids, use_cache=keep, logits_to_keep=1)
            return out.logits.argmax(-1)

    def write() -> Any:
        with torch.inference_mode():
            return model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=case.new,
                min_new_tokens=case.new,
                do_sample=False,
            )

    return write if way == cases.GENERATE else read, {}


def make_step(case: Case, *, checkpointing: bool) -> Call:
    """Builds a training step of PEFT's adapters, on one batch."""
    import peft
    import torch

    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=_LINEARS
    )
    model = make_model(case)
    if checkpointing:
        # Newer releases warn of the old name.
        name = "activation_checkpointing_enable"
        enable = getattr(model, name, model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    model = peft.get_peft_model(model, config).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    tx = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    ids = torch.from_numpy(cases.make_ids(case, case.length)).long()

    def step() -> float:
        tx.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        tx.step()
        return loss.item()

    return step
