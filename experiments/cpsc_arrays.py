"""Records of CPSC 2018 as windows of several labels, for `--data.corpus arrays`.

    python -m experiments.cpsc_arrays FOLDER OUT [--leads I II] [--unknown 0.3]
    eegkd distill dlink --preset small --data.corpus arrays --data.root OUT

Every record (`.hea` with a line `#Dx: AF,RBBB`, `.mat` beside it) is one person. It is
filtered from 0.5 to 40 Hz, brought to 200 Hz and cut into windows of 10 s, which have
all labels of their record; a rest shorter than a window is left out. `Normal` is a
class like the others.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from scipy import signal as sp

RATE, SECONDS, BAND = 200, 10, (0.5, 40.0)
DX = "Dx:"


def diagnoses(comments: list[str]) -> list[str]:
    """Returns the labels in the comments of a header."""
    lines = [text.strip().removeprefix("#").strip() for text in comments]
    found = [text.removeprefix(DX) for text in lines if text.startswith(DX)]
    return [name.strip() for text in found for name in text.split(",") if name.strip()]


def cut(record: Path, leads: list[str]) -> tuple[np.ndarray, list[str]]:
    """Reads one record as windows in mV, f32[n, c, t], and its labels."""
    read: Any = wfdb.rdrecord(str(record.with_suffix("")))
    columns = [read.sig_name.index(name) for name in leads or read.sig_name]
    x = read.p_signal[:, columns].T
    sos = sp.butter(3, BAND, "bandpass", fs=read.fs, output="sos")
    x = sp.resample_poly(sp.sosfiltfilt(sos, x), RATE, int(read.fs), axis=1)
    length = RATE * SECONDS
    num = x.shape[1] // length
    windows = x[:, : num * length].reshape(len(columns), num, length)
    return windows.transpose(1, 0, 2).astype(np.float32), diagnoses(read.comments)


def convert(folder: Path, out: Path, leads: list[str], unknown: float) -> None:
    """Writes all records of a folder; a share of the labels can be made unknown."""
    records = sorted(folder.glob("*.hea"))
    if not records:
        raise SystemExit(f"{folder}: no .hea in it.")
    windows, labels = zip(*(cut(path, leads) for path in records), strict=True)
    classes = sorted({name for own in labels for name in own})
    rows = np.array([[int(name in own) for name in classes] for own in labels])
    hidden = np.random.default_rng(0).random(rows.shape) < unknown
    rows[hidden] = -1
    counts = [len(own) for own in windows]
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        out / "cpsc2018.npz",
        signal=np.concatenate(windows),
        label=np.repeat(rows, counts, axis=0),
        subject=np.repeat([path.stem for path in records], counts),
    )
    header: Any = wfdb.rdheader(str(records[0].with_suffix("")))
    about = {
        **{"channels": leads or header.sig_name, "rate": RATE, "unit": "mV"},
        "classes": classes,
    }
    (out / "windows.json").write_text(json.dumps(about))


def main() -> None:
    """Converts the folder of the command line."""
    parser = argparse.ArgumentParser(description="CPSC 2018 as arrays of windows.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--leads", nargs="*", default=[])
    parser.add_argument("--unknown", type=float, default=0.0)
    options = parser.parse_args()
    convert(options.folder, options.out, options.leads, options.unknown)


if __name__ == "__main__":
    main()
