"""Windows a second from EDF files to a store, against plain MNE calls in a loop.

Both read the same files and cut the same windows: 19 channels, the same Butterworth
band-pass and notch without phase shift, 200 samples per second, windows of 4 s, z-score
a window. The loop saves one array of windows and one of labels; ours also hashes the
sources, checks every sample, and writes parts, index and manifest so that it can be
resumed. `mne_fir` is the loop with MNE's default filters and resampling.

    python -m experiments.benchmarks.windows --root EEGMAT [--json FILE]
"""

import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.signal import iirnotch, tf2sos

from eegkd.data.config import DataConfig
from eegkd.data.corpora import get_corpus
from eegkd.data.windows.cutting import resolve_config
from eegkd.data.windows.prepare import prepare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to time.

    Attributes:
        root: The folder of the EEGMAT recordings.
        repeats: Rounds; in each, every implementation runs once, in turn.
        json: Write the rows here too.
        copies: Take the files this many times, for a longer run.
    """

    root: Path
    repeats: int = 5
    json: Path | None = None
    copies: int = 1


def make_files(root: Path, copies: int, folder: Path) -> None:
    """Links the recordings, each under `copies` subject numbers."""
    for path in sorted(root.rglob("Subject*.edf")):
        number, digit = path.stem.removeprefix("Subject").split("_")
        for copy in range(copies):
            name = f"Subject{int(number) + 36 * copy:02d}_{digit}.edf"
            (folder / name).symlink_to(path.resolve())


def run_mne(root: Path, out: Path, config: DataConfig, *, same_filters: bool) -> int:
    """Does with plain MNE calls, one file after another, what `prepare` does."""
    low, high = config.band or (None, None)
    signals, labels = [], []
    for path in sorted(root.glob("*.edf")):
        raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
        raw.rename_channels(lambda name: name.removeprefix("EEG "))
        raw.rename_channels({"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"})
        raw.pick(list(config.channels))
        band, line, method = {}, {}, "fft"
        if same_filters:
            butter = {"order": config.filter_order, "ftype": "butter", "output": "sos"}
            sections = tf2sos(*iirnotch(config.notch, 30, fs=raw.info["sfreq"]))
            band = {"method": "iir", "iir_params": butter}
            # MNE's default, "fft", would shift these files by 2 ms.
            method = "polyphase"
            line = {"method": "iir", "iir_params": {"sos": sections, "output": "sos"}}
        raw.filter(low, high, verbose="error", **band)
        raw.notch_filter(config.notch, verbose="error", **line)
        raw.resample(config.rate or 200.0, method=method, verbose="error")
        epochs = mne.make_fixed_length_epochs(
            raw, duration=config.window_s or 4.0, preload=True, verbose="error"
        )
        x = epochs.get_data(units="uV", verbose="error")
        x = (x - x.mean(axis=2, keepdims=True)) / x.std(axis=2, keepdims=True)
        signals.append(x.astype(np.float32))
        labels.append(np.full(len(x), int(path.stem[-1]) - 1))
    out.mkdir()
    np.save(out / "signal.npy", np.concatenate(signals))
    np.save(out / "label.npy", np.concatenate(labels))
    return sum(len(x) for x in signals)


def run_ours(out: Path, config: DataConfig) -> int:
    """Writes a window store."""
    return len(prepare(config, out, progress=False))


def measure(options: Options, folder: Path) -> list[dict[str, Any]]:
    """Runs every implementation in turn; returns the medians as rows."""
    root = folder / "edf"
    root.mkdir()
    make_files(options.root, options.copies, root)
    base = DataConfig(corpus="eegmat", root=str(root))
    config = resolve_config(base, get_corpus("eegmat"))
    one, two = (dataclasses.replace(config, workers=n) for n in (1, 2))
    runs: dict[str, Callable[[Path], int]] = {
        "eegkd, 1 worker": lambda out: run_ours(out, one),
        "eegkd, 2 workers": lambda out: run_ours(out, two),
        "mne": lambda out: run_mne(root, out, config, same_filters=True),
        "mne_fir": lambda out: run_mne(root, out, config, same_filters=False),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.repeats + 1):
        for name, run in runs.items():
            out = folder / f"{name}_{turn}"
            start = time.perf_counter()
            num = run(out)
            speed = num / (time.perf_counter() - start)
            if turn:  # The first round imports, starts workers and fills the cache.
                speeds[name].append(speed)
            if turn > 1:
                shutil.rmtree(out)
    ours, loop = (
        np.load(folder / f"{name}_1" / "signal.npy", mmap_mode="r")
        for name in ("eegkd, 1 worker", "mne")
    )
    if ours.shape != loop.shape:
        raise RuntimeError(f"Other windows: {ours.shape} and {loop.shape}.")
    rows = [
        (
            "eegkd, 1 worker",
            "rms_difference",
            float(np.sqrt(np.mean((ours - loop) ** 2))),
        )
    ]
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        rows += [
            (name, "windows_per_s", medians[name]),
            (name, "windows_per_s_min", min(values)),
            (name, "windows_per_s_max", max(values)),
            (name, "ratio_to_mne", medians[name] / medians["mne"]),
        ]
    keys = ("implementation", "metric", "value")
    return [{"case": "eegmat"} | dict(zip(keys, row, strict=True)) for row in rows]


def main(options: Options) -> None:
    """Times, prints a table, writes the rows."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    table = Table("implementation", "metric", "value", title="EDF to windows")
    for row in rows:
        table.add_row(row["implementation"], row["metric"], f"{row['value']:.4g}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
