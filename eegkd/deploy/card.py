"""The model card: facts for a file's user, as text and as plain values."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from eegkd.config import RunConfig
from eegkd.data.recordings.filtering import look_ahead_s
from eegkd.data.windows.cutting import reference_of
from eegkd.deploy.audit import Audit
from eegkd.deploy.graph import OUTPUT
from eegkd.deploy.latency import Latency
from eegkd.deploy.load import Model
from eegkd.deploy.onnx_file import package_versions
from eegkd.deploy.parity import Parity
from eegkd.host.process import num_cores
from eegkd.host.text import for_markdown
from eegkd.models import licences_of
from eegkd.pipeline.folder import (
    Costs,
    Score,
    Splits,
    read_json,
    read_record,
    versions,
)
from eegkd.pipeline.norms import NORMS

_KEPT = ("montage", "policy", "band", "notch", "filter_order", "zscore")
_TEMPLATE = Path(__file__).with_name("card.md.j2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One written file, and the results of its gate.

    Attributes:
        name: Name in the folder.
        size: Bytes.
        sha256: Hash of the content.
        parity: Comparison with the student.
        audit: Contents; None for a file of weights, which is no graph.
    """

    name: str
    size: int
    sha256: str
    parity: Parity
    audit: Audit | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of a finished model that its files do not hold.

    Attributes:
        name: Name of the model.
        system: Name of the system that distilled it.
        row: Row of the run: student, teacher or a control.
        classes: Names, in the order of the probabilities.
        channels: Names, in the order of the signal's rows.
        units: One per channel.
        rate: Samples per second.
        n_times: Samples per window.
        preprocessing: Preprocessing of the training windows.
        look_ahead_s: Seconds before a step at which a hundredth of it shows in the
            filtered signal.
        standardised: The graph itself subtracts the training set's mean.
        temperature: Fitted on validation subjects: `p^(1/T)`, normalised, is then
            calibrated; of several labels, the logistic function of `logit(p) / T`.
        threshold: Probability from which on there is an event; None without event
            classes.
        parts: Parameters by part of the model.
        corpus: Origin of the training windows, with their licence if known.
        training: Numbers of subjects and windows that this model was trained on.
        stamp: Meaning of the split for the scores.
        scores: Rows of results.json, over all folds and seeds.
        licences: Licences of published weights that training started from.
        files: Written files.
        latency: Times on `machine`.
        machine: Processor and cores of the machine.
        versions: Versions of the packages that wrote the files.
        notes: Sentences that the user must not miss.
        thresholds: Of several labels, each one's probability from which on a window has
            it; else ().
        norms: Name of the file of what the training recordings were like; "" is none.
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
    look_ahead_s: float
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
    thresholds: Sequence[float] = ()
    norms: str = ""


def make_card(
    model: Model,
    config: RunConfig,
    row: str,
    *,
    weights: Mapping[str, str],
    sizes: Mapping[str, int],
    files: Sequence[ModelFile],
    latency: Sequence[Latency],
) -> Card:
    """Gathers a card from the run folder.

    Args:
        model: Exported model.
        config: Options of the run; `config.out` is its folder.
        row: Row of the model in the run.
        weights: Published weights that training started from: model -> their file.
        sizes: Elements of each of the model's arrays, by name.
        files: Written files.
        latency: Times.

    Raises:
        InputError: If a file of the run is damaged.
    """
    run, manifest = Path(config.out), model.intake.manifest
    record = read_record(run)
    divided, judged = run / "splits.json", run / "results.json"
    splits = read_json(divided, Splits) if divided.is_file() else None
    scores = read_json(judged, list[Score]) if judged.is_file() else []
    preprocessing = manifest["preprocessing"]
    standardised = model.zscore is not None
    signal = model.intake.signal
    units = dict(zip(manifest["channels"], manifest["units"], strict=True))
    licence = manifest.get("licence") or "no licence recorded"
    return Card(
        name=f"{row} of {record['system']} on {manifest['corpus']}",
        system=record["system"],
        row=row,
        classes=signal.classes,
        channels=signal.channels,
        units=[units[name] for name in signal.channels]
        if standardised
        else signal.units,
        rate=signal.rate,
        n_times=signal.n_times,
        preprocessing=_preprocessing(manifest),
        look_ahead_s=look_ahead_s(
            preprocessing.get("band"), preprocessing.get("filter_order", 4), signal.rate
        ),
        standardised=standardised,
        temperature=model.temperature,
        threshold=model.threshold,
        thresholds=model.thresholds,
        parts=_parts(sizes),
        corpus=f"{manifest['corpus']} ({licence})",
        training=_training(splits, config, manifest),
        stamp=_stamp(splits) if splits else "",
        scores=[r for r in scores if r["model"] in (row, "teacher", "no_teacher")],
        licences=_licences(weights, config.cache.given),
        files=files,
        latency=latency,
        machine=_machine(),
        versions=versions() | package_versions(),
        notes=_notes(run),
        norms=NORMS if model.intake.norms is not None else "",
    )


def _preprocessing(manifest: Mapping[str, Any]) -> dict[str, Any]:
    done, reference = manifest["preprocessing"], reference_of(manifest)
    kept = {name: done[name] for name in _KEPT if name in done}
    if reference is not None:
        kept["average of"] = reference.electrodes
    return kept


def _parts(sizes: Mapping[str, int]) -> dict[str, int]:
    """Counts the parameters of each part, named by the first levels of its path."""
    parts: dict[str, int] = {}
    for name, size in sizes.items():
        part = "/".join(name.split("/")[:3][: max(1, name.count("/"))])
        parts[part] = parts.get(part, 0) + size
    return parts


def _training(
    splits: Splits | None, config: RunConfig, manifest: Mapping[str, Any]
) -> str:
    if not splits:
        return f"Split: {config.split}."
    train = splits["folds"][0]["train"]
    num = config.train.labelled_people or len(manifest.get("student_subjects", ()))
    few = f" Students had the labels of {num} of them." if num else ""
    return (
        f"This model was trained on {train['windows']:,} windows of "
        f"{len(train['groups'])} {splits['unit']}s (split: {config.split}).{few}"
    )


def _stamp(splits: Splits) -> str:
    if splits["leaks_subjects"]:
        return (
            "Leaks subjects: windows of one person are in training and in test; the "
            "scores do not hold for new people."
        )
    return f"Nobody is in training and in test: {splits['unit']}s were split."


def _licences(weights: Mapping[str, str], given: str) -> list[str]:
    """Lists the licences of the weights that training started from."""
    lines = []
    if given:
        lines.append(
            f"The teacher's outputs were given ({Path(given).name}): the model that "
            "made them, and its licence, are not recorded."
        )
    for model, file in weights.items():
        lines.append(f"Training started from weights of {model} ({Path(file).name}).")
        lines += [
            f"Published weights of {model}: {x.source}, {x.licence}. {x.note}".strip()
            for x in licences_of(model)
        ]
    return lines or ["Every part was trained from random weights: no published ones."]


def _notes(run: Path) -> list[str]:
    file = run / "summary.json"
    return read_json(file, Costs).get("notes", []) if file.is_file() else []


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {num_cores()} cores"


def render_card(card: Card) -> str:
    """Formats a card in Markdown, with the header that model hubs read."""
    header = ModelCardData(
        library_name="eegkd",
        model_name=_safe(card.name),
        tags=["eeg", "distillation", _safe(card.system)],
    )
    values = {"card": _safe(card), "words": _words, "output": OUTPUT}
    return str(ModelCard.from_template(header, str(_TEMPLATE), **values)) + "\n"


def _safe(value: Any) -> Any:
    """Escapes all names, of classes, channels and files, among the card's values."""
    if isinstance(value, str):
        return for_markdown(value)
    if isinstance(value, Card | ModelFile):
        value = vars(value)
    elif isinstance(value, Parity | Audit | Latency):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {_safe(name): _safe(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_safe(item) for item in value]
    return value


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(item) for item in value)
    return "" if value is None else str(value)
