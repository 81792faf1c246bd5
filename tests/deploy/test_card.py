"""The model card: what it says, and what names in it cannot do."""

from huggingface_hub import ModelCard

from eegkd.deploy.audit import Audit
from eegkd.deploy.card import Card, ModelFile, render_card
from eegkd.deploy.latency import Latency
from eegkd.deploy.parity import Parity

PARITY = Parity(32, (1, 7, 32), 1.2e-7, 1.0)
AUDIT = Audit(("signal",), 12345, 678)


def make_card(**changes):
    values = {
        "name": "student of dlink on toy",
        "system": "dlink",
        "row": "student",
        "classes": ("rest", "task"),
        "channels": ("Fp1", "C3"),
        "units": ("uV", "uV"),
        "rate": 64.0,
        "n_times": 128,
        "preprocessing": {"band": (0.5, 25.0), "notch": None, "policy": "error"},
        "look_ahead_s": 2.42,
        "standardised": True,
        "temperature": 1.2345,
        "threshold": 0.4,
        "parts": {"params/head": 1000, "params/stem": 20},
        "corpus": "toy (no licence recorded)",
        "training": "This model was trained on 12 windows.",
        "stamp": "Nobody is in training and in test.",
        "scores": [
            {"model": "student", "metric": "auroc", "mean": 0.512345, "low": None}
        ],
        "licences": ("Every part was trained from random weights.",),
        "files": [
            ModelFile(
                name=f"model.{name}",
                size=123456,
                sha256="ab",
                parity=PARITY,
                audit=None if name == "safetensors" else AUDIT,
            )
            for name in ("stablehlo", "onnx", "safetensors")
        ],
        "latency": [Latency("jax", 1, 0.1234, 0.5)],
        "machine": "a processor, 2 cores",
        "versions": {"jax": "0.10", "flax": "0.12"},
        "notes": ("A note.", "Another."),
    }
    return Card(**(values | changes))


def test_a_card_says_what_a_user_must_know():
    text = render_card(make_card())
    for said in (
        "# student of dlink on toy\n",
        "A `student` of `dlink`: 1,020 parameters. It is no medical device.\n\n"
        "**A note.**\n\n**Another.**\n\n## Input and output",
        "float32 [batch, 2, 128], 2 s at 64 Hz, unit uV\n",
        "channels, in this order: Fp1, C3\n",
        "- an event from 0.400 of",
        "| step | value |\n| --- | --- |\n| band | 0.5, 25 |\n| notch |  |\n",
        "(zero phase): a hundredth of a step shows 2.4 s before it happens.",
        "toy (no licence recorded). This model was trained on 12 windows. Nobody",
        "| student | auroc | 0.5123 |  |",
        "| model.onnx | 123,456 | 1.2e-07 | 100.0% | 12,345 | 678 |\n",
        "| model.safetensors | 123,456 | 1.2e-07 | 100.0% |  |  |\n",
        "in batches of 1, 7, 32:",
        "One window on a processor, 2 cores.\n\n| runtime",
        "| jax | 1 | 0.123 | 0.500 |\n",
        'pathlib.Path("model.stablehlo")',
        'session.run(None, {"signal": signal})',
        "Written with jax 0.10, flax 0.12.\n",
    ):
        assert said in text, said
    header = ModelCard(text).data
    assert header.library_name == "eegkd"
    assert "dlink" in header.tags


def test_what_is_unknown_is_left_out_or_said():
    card = make_card(
        scores=(),
        latency=(),
        notes=(),
        standardised=False,
        threshold=None,
        units=(),
        look_ahead_s=0.0,
    )
    text = render_card(card)
    assert "The run was not judged when this was written." in text
    assert "Not measured." in text
    assert "unit unknown" in text
    assert "an event from" not in text
    assert "part of the graph" not in text
    assert "zero phase" not in text
    assert "\n\n\n" not in text


def test_names_are_no_html_no_links_no_cells_and_no_control_characters():
    evil = (
        "<script>alert(1)</script>",
        "a | b",
        "line\n# break",
        "[x](javascript:y)",
        "\x1b[31m",
        "{{ 7 * 7 }}",
    )
    card = make_card(
        name=f"student on {evil[0]}",
        classes=evil,
        channels=evil,
        corpus=evil[0],
        parts={evil[0]: 1, evil[1]: 2},
        notes=evil,
        preprocessing={"montage": evil[1]},
    )
    text = render_card(card)
    plain = render_card(
        make_card(classes=["a"] * 6, channels=["a"] * 6, notes="abcdef")
    )
    for mark in ("<", "\x1b", "\n#", " | ", "[x]"):
        kept = 0 if mark != "[x]" else text.count("\\[x]")
        assert text.count(mark) <= plain.count(mark) + kept, mark
    assert "&lt;script>alert(1)&lt;/script>" in text
    assert "{{ 7 * 7 }}" in text
