"""What a run knows of one of its models, gathered for the model's card."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.config import RunConfig
from eegkd.deploy.card import Card, ModelFile
from eegkd.deploy.latency import Latency
from eegkd.deploy.load import Model
from eegkd.deploy.onnx_file import package_versions
from eegkd.host.process import num_cores
from eegkd.models import licences_of
from eegkd.pipeline.folder import read_json, versions

_KEPT = ("montage", "policy", "band", "notch", "filter_order", "zscore")


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
        model: As it was exported.
        config: Of the run; `config.out` is its folder.
        row: The model's name there.
        weights: Published weights that training started from: model -> their file.
        sizes: Elements of each of the model's arrays, by name.
        files: What was written.
        latency: What was timed.

    Raises:
        InputError: If a file of the run is damaged.
    """
    run, manifest = Path(config.out), model.intake.manifest
    record = read_json(run / "config.json")
    splits = read_json(run / "splits.json") if (run / "splits.json").is_file() else {}
    judged = run / "results.json"
    scores = read_json(judged) if judged.is_file() else []
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
        preprocessing={k: preprocessing[k] for k in _KEPT if k in preprocessing},
        standardised=standardised,
        temperature=model.temperature,
        threshold=model.threshold,
        parts=_parts(sizes),
        corpus=f"{manifest['corpus']} ({licence})",
        training=_training(splits, record["run"]["split"], manifest),
        stamp="" if splits.get("leaks_subjects") is None else _stamp(splits),
        scores=[r for r in scores if r["model"] in (row, "teacher", "no_teacher")],
        licences=_licences(weights, config.cache.given),
        files=files,
        latency=latency,
        machine=_machine(),
        versions=versions() | package_versions(),
        notes=_notes(run),
    )


def _parts(sizes: Mapping[str, int]) -> dict[str, int]:
    """Adds up the parameters of each part, named by the first levels of its name."""
    parts: dict[str, int] = {}
    for name, size in sizes.items():
        part = "/".join(name.split("/")[:3][: max(1, name.count("/"))])
        parts[part] = parts.get(part, 0) + size
    return parts


def _training(
    splits: Mapping[str, Any], split: str, manifest: Mapping[str, Any]
) -> str:
    if not splits:
        return f"Split: {split}."
    train = splits["folds"][0]["train"]
    labelled = manifest.get("student_subjects", ())
    few = f" Students had the labels of {len(labelled)} of them." if labelled else ""
    return (
        f"This model was trained on {train['windows']:,} windows of "
        f"{len(train['groups'])} {splits['unit']}s (split: {split}).{few}"
    )


def _stamp(splits: Mapping[str, Any]) -> str:
    if splits["leaks_subjects"]:
        return (
            "**Leaks subjects: windows of one person are in training and in test; the "
            "scores do not hold for new people.**"
        )
    return f"Nobody is in training and in test: {splits['unit']}s were split."


def _licences(weights: Mapping[str, str], given: str) -> list[str]:
    """Says what is known of the weights that training started from."""
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
    return list(read_json(file).get("notes", ())) if file.is_file() else []


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {num_cores()} cores"
