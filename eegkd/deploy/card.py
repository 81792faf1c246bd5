"""The model card: what a file's user has to know, for people and as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eegkd.deploy.audit import Audit
from eegkd.deploy.graph import OUTPUT
from eegkd.deploy.latency import Latency
from eegkd.deploy.parity import Parity


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One written file, and what its gate found.

    Attributes:
        name: In the folder.
        size: Bytes.
        sha256: Of its content.
        parity: Against the student.
        audit: Of what it holds; None for a file of weights, which is no graph.
    """

    name: str
    size: int
    sha256: str
    parity: Parity
    audit: Audit | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A finished model with all that its files do not say.

    Attributes:
        name: Of the model.
        system: That it was distilled by.
        row: Of the run: student, teacher or a control.
        classes: In the order of the probabilities.
        channels: In the order of the signal's rows.
        units: A channel each.
        rate: Samples a second.
        n_times: Samples a window.
        preprocessing: What was done to the training windows.
        standardised: The graph itself subtracts the training set's mean.
        temperature: Fitted on validation subjects: `p^(1/T)`, normalised, is then
            calibrated.
        threshold: Of an event's probability; None without event classes.
        parts: Parameters by part of the model.
        corpus: Of the training windows, with its licence where one is known.
        training: How many subjects and windows this very model was trained on.
        stamp: What the split means for the scores.
        scores: Rows of results.json, over all folds and seeds.
        licences: Of published weights that training started from.
        files: What was written.
        latency: On `machine`.
        machine: Its processor and cores.
        versions: Of the packages that wrote the files.
        notes: Sentences that the user must not miss.
    """

    name: str
    system: str
    row: str
    classes: Sequence[str]
    channels: Sequence[str]
    units: Sequence[str]
    rate: float
    n_times: int
    preprocessing: Mapping[str, Any]
    standardised: bool
    temperature: float
    threshold: float | None
    parts: Mapping[str, int]
    corpus: str
    training: str
    stamp: str
    scores: Sequence[Mapping[str, Any]]
    licences: Sequence[str]
    files: Sequence[ModelFile]
    latency: Sequence[Latency]
    machine: str
    versions: Mapping[str, str]
    notes: Sequence[str] = ()


def render_card(card: Card) -> str:
    """Writes a card in Markdown."""
    sections = (
        ("", _head(card)),
        ("Input and output", _signal(card)),
        ("Preprocessing", _preprocessing(card)),
        ("Training data", f"{card.corpus}. {card.training} {card.stamp}"),
        ("Scores", _scores(card)),
        ("Licences", "\n".join(f"- {line}" for line in card.licences)),
        ("Files", _files(card)),
        ("Parameters", _parts(card)),
        ("Latency", _latency(card)),
        ("Use", _use(card)),
    )
    parts = [f"## {title}\n\n{text}" if title else text for title, text in sections]
    return "\n\n".join(parts) + "\n"


def _head(card: Card) -> str:
    total = sum(card.parts.values())
    lines = [f"# {card.name}", "", f"A `{card.row}` of `{card.system}`: {total:,} "]
    lines[-1] += "parameters. It is no medical device."
    lines += [f"\n**{note}**" for note in card.notes]
    return "\n".join(lines)


def _signal(card: Card) -> str:
    units = ", ".join(dict.fromkeys(card.units)) or "unknown"
    lines = [
        f"- `signal`: float32 [batch, {len(card.channels)}, {card.n_times}], "
        f"{card.n_times / card.rate:g} s at {card.rate:g} Hz, unit {units}",
        f"- channels, in this order: {', '.join(card.channels)}",
        f"- `{OUTPUT}`: float32 [batch, {len(card.classes)}], the classes "
        f"{', '.join(card.classes)}",
        f"- calibrated by the temperature {card.temperature:.3f}: p^(1/T), normalised",
    ]
    if card.threshold is not None:
        lines.append(
            f"- an event from {card.threshold:.3f} of an event class's probability on, "
            "after smoothing (fitted on validation subjects)"
        )
    return "\n".join(lines)


def _preprocessing(card: Card) -> str:
    rows = [(name, _words(value)) for name, value in card.preprocessing.items()]
    text = _table(("step", "value"), rows)
    if card.standardised:
        text += (
            "\n\nMean and spread of the training set are part of the graph: give it "
            "the signal in its unit."
        )
    return text


def _scores(card: Card) -> str:
    if not card.scores:
        return "The run was not judged when this was written."
    names = ("model", "metric", "mean", "low", "high", "n_subjects", "seeds", "verdict")
    rows = [[_words(row.get(name)) for name in names] for row in card.scores]
    return (
        "Over test subjects of all folds and seeds; the files hold fold 0, seed 0.\n\n"
        + _table(names, rows)
    )


def _files(card: Card) -> str:
    rows = [
        (
            file.name,
            f"{file.size:,}",
            f"{file.parity.max_difference:.1e}",
            f"{file.parity.agreement:.1%}",
            f"{file.audit.parameters:,}" if file.audit else "",
            f"{file.audit.constants:,}" if file.audit else "",
        )
        for file in card.files
    ]
    head = ("file", "bytes", "largest difference", "same class", "parameters")
    parity = card.files[0].parity
    sizes = ", ".join(map(str, parity.batch_sizes))
    return (
        _table((*head, "other constants"), rows)
        + f"\n\nRead back and compared with the model on {parity.windows} windows of "
        f"the run, in batches of {sizes}: the largest difference of a probability."
    )


def _parts(card: Card) -> str:
    rows = [(name, f"{size:,}") for name, size in card.parts.items()]
    return _table(("part", "parameters"), rows)


def _latency(card: Card) -> str:
    if not card.latency:
        return "Not measured."
    rows = [
        (x.runtime, str(x.threads), f"{x.p50_ms:.3f}", f"{x.p95_ms:.3f}")
        for x in card.latency
    ]
    head = ("runtime", "threads", "p50 ms", "p95 ms")
    return f"One window on {card.machine}.\n\n{_table(head, rows)}"


def _use(card: Card) -> str:
    names = {file.name for file in card.files}
    text = []
    if "model.stablehlo" in names:
        text.append(
            "```python\nimport pathlib\n\nimport jax\nimport jax.export\n\n"
            'data = pathlib.Path("model.stablehlo").read_bytes()\n'
            "run = jax.jit(jax.export.deserialize(bytearray(data)).call)\n"
            f"{OUTPUT} = run(signal)\n```"
        )
    if "model.onnx" in names:
        text.append(
            "```python\nimport onnxruntime\n\n"
            'session = onnxruntime.InferenceSession("model.onnx")\n'
            f'({OUTPUT},) = session.run(None, {{"signal": signal}})\n```'
        )
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    return "\n\n".join([*text, f"Written with {versions}."])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(item) for item in value)
    return "" if value is None else str(value)
