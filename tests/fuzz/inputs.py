"""Sound recordings in every format that is damaged: twenty seconds of five channels."""

from pathlib import Path

import numpy as np

from tests.support.edf import write_edf
from tests.support.gdf import write_gdf
from tests.support.recordings import NAMES

RATE, SECONDS = 100, 20
EVENTS = ((2.0, 3.0, "seizure"), (12.0, 2.0, "seizure"))


def noise(seed: int = 0) -> np.ndarray:
    """Draws `f64[5, 2000]` of 30 uV."""
    rng = np.random.default_rng(seed)
    return 30 * rng.normal(size=(len(NAMES), RATE * SECONDS))


def edf(folder: Path) -> None:
    """Writes a plain EDF file."""
    write_edf(folder / "a.edf", noise(), NAMES, rate=RATE)


def edf_plus(folder: Path) -> None:
    """Writes EDF+ that says where each record begins."""
    onsets = range(SECONDS)
    write_edf(
        folder / "a.edf",
        noise(),
        NAMES,
        rate=RATE,
        annotations=EVENTS,
        record_onsets=onsets,
    )


def bdf(folder: Path) -> None:
    """Writes the samples of an EDF file with 24 bits."""
    edf(folder)
    data = (folder / "a.edf").read_bytes()
    (folder / "a.edf").unlink()
    count = len(NAMES)
    start = 256 * (count + 1)
    head = bytearray(data[:start])
    head[:8], head[192:236] = b"\xffBIOSEMI", b"24BIT".ljust(44)
    limits = 256 + count * (16 + 80 + 8 + 8 + 8)
    head[limits : limits + 16 * count] = b"-8388352" * count + b"8388352 " * count
    samples = np.frombuffer(data[start:], "<i2").astype("<i4") << 8
    packed = samples.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    (folder / "a.bdf").write_bytes(bytes(head) + packed)


def gdf(folder: Path) -> None:
    """Writes GDF 1.25 with events."""
    events = [(round(t * RATE), 769, round(d * RATE)) for t, d, _ in EVENTS]
    write_gdf(folder / "a.gdf", noise(), NAMES, events, rate=RATE)


def wfdb(folder: Path) -> None:
    """Writes a WFDB record with annotations."""
    import wfdb as package

    package.wrsamp(
        "a",
        fs=RATE,
        units=["uV"] * len(NAMES),
        sig_name=list(NAMES),
        p_signal=noise().T,
        fmt=["16"] * len(NAMES),
        write_dir=str(folder),
    )
    where = np.array([100, 500, 900])
    package.wrann("a", "atr", where, symbol=["N", "V", "N"], write_dir=str(folder))


def brainvision(folder: Path) -> None:
    """Writes BrainVision's three files, with 32-bit floats."""
    channels = "".join(f"Ch{i + 1}={name},,1,\u00b5V\n" for i, name in enumerate(NAMES))
    (folder / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        "Codepage=UTF-8\nDataFile=a.eeg\nMarkerFile=a.vmrk\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(NAMES)}\n"
        f"SamplingInterval={1_000_000 // RATE}\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}",
        "utf-8",
    )
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
        "Codepage=UTF-8\nDataFile=a.eeg\n[Marker Infos]\n"
        "Mk1=New Segment,,1,1,0,20200101000000000000\nMk2=Stimulus,S  7,201,300,0\n"
    )
    noise().T.astype("<f4").tofile(folder / "a.eeg")


def fif(folder: Path) -> None:
    """Writes a FIF file with annotations."""
    import mne

    info = mne.create_info(list(NAMES), RATE, "eeg")
    raw = mne.io.RawArray(noise() / 1e6, info, verbose="error")
    raw.set_annotations(mne.Annotations(*zip(*EVENTS, strict=True)))
    raw.save(folder / "a_raw.fif", verbose="error")


def eeglab(folder: Path) -> None:
    """Writes an EEGLAB dataset with its samples in the file of MATLAB."""
    from scipy.io import savemat

    kind = [("labels", object)]
    places = np.array([(name,) for name in NAMES], kind)
    kind = [("type", object), ("latency", float), ("duration", float)]
    events = np.array([(e[2], e[0] * RATE + 1, e[1] * RATE) for e in EVENTS], kind)
    signal = noise().astype(np.float32)
    about = {
        **{"setname": "a", "nbchan": len(NAMES), "trials": 1, "pnts": signal.shape[1]},
        **{
            "srate": float(RATE),
            "xmin": 0.0,
            "xmax": SECONDS - 1 / RATE,
            "ref": "common",
        },
        **{"data": signal, "chanlocs": places, "event": events, "epoch": []},
        **{"icawinv": [], "icaweights": [], "icasphere": [], "comments": ""},
    }
    savemat(folder / "a.set", {"EEG": about}, appendmat=False)


def mine(folder: Path) -> None:
    """Writes three EDF files of three persons, with labels.csv."""
    lines = ["file,subject,onset,duration,label"]
    for i in range(3):
        (folder / f"s{i}").mkdir()
        path = folder / f"s{i}" / f"p{i}.edf"
        write_edf(path, noise(i), NAMES, rate=RATE)
        lines += [f"s{i}/p{i}.edf,{i},{t},{d},{label}" for t, d, label in EVENTS]
    (folder / "labels.csv").write_text("\n".join(lines))


def arrays(folder: Path) -> None:
    """Writes windows that were cut elsewhere: a .npz, and a .npy with its .csv."""
    (folder / "windows.json").write_text(
        '{"channels": ["C3", "Cz", "C4"], "rate": 50, "unit": "uV", "classes": '
        '["rest", "task"]}'
    )
    signal = noise()[:3].reshape(3, 20, 100).swapaxes(0, 1).astype(np.float32)
    label, people = np.arange(20) % 2, np.repeat(["1", "2"], 10)
    np.savez_compressed(
        folder / "a.npz", signal=signal[:10], label=label[:10], subject=people[:10]
    )
    np.save(folder / "b.npy", signal[10:])
    rows = zip(label[10:], people[10:], strict=True)
    text = "\n".join(["label,subject", *(f"{k},{who}" for k, who in rows)])
    (folder / "b.csv").write_text(text)
