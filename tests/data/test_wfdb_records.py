"""WFDB records whose signals have several samples a frame, or units of their own."""

import numpy as np
import pytest

from eegkd.data import read_recording
from eegkd.errors import InputError

LINE = "r.dat {fmt} 10(0)/{unit} 16 0 0 0 0 {name}\n"


def record(folder, signals, per_frame, *, fs=64, unit="uV", names=("Fp1", "Fp2", "F3")):
    """Writes signals in uV as tenths, in frames."""
    frames = len(signals[0]) // per_frame[0]
    parts = [
        np.round(x * 10).astype("<i2").reshape(frames, count)
        for x, count in zip(signals, per_frame, strict=True)
    ]
    np.concatenate(parts, axis=1).tofile(folder / "r.dat")
    lines = [
        LINE.format(fmt=f"16x{count}" if count > 1 else "16", unit=unit, name=name)
        for name, count in zip(names, per_frame, strict=False)
    ]
    head = f"r {len(signals)} {fs} {frames}\n" + "".join(lines)
    (folder / "r.hea").write_bytes(head.encode())
    return folder / "r.hea"


def tone(hertz, rate, seconds=20):
    return 50 * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate)


def test_four_samples_a_frame_are_four_samples(tmp_path):
    signals = [tone(20, 256), tone(50, 256)]
    recording = read_recording(record(tmp_path, signals, (4, 4)))
    assert recording.rate == 256
    assert recording.resampled == ()
    np.testing.assert_allclose(recording.signal, signals, atol=0.06)
    np.testing.assert_allclose(recording.signal.std(axis=1), 35.36, atol=0.01)


@pytest.mark.parametrize("per_frame", [(4, 1), (1, 4), (3, 2)])
def test_unlike_rates_come_at_the_highest_and_are_named(tmp_path, per_frame):
    rates = [64 * count for count in per_frame]
    signals = [tone(10, rate) for rate in rates]
    recording = read_recording(record(tmp_path, signals, per_frame))
    assert recording.rate == max(rates)
    slow = per_frame.index(min(per_frame))
    assert recording.resampled == (("Fp1", "Fp2")[slow],)
    want = tone(10, max(rates))
    inner = slice(200, -200)  # the ends are extended by guess
    np.testing.assert_allclose(recording.signal[1 - slow], want, atol=0.06)
    np.testing.assert_allclose(recording.signal[slow, inner], want[inner], atol=0.3)


def test_a_slow_signal_with_missing_samples_is_held(tmp_path):
    slow = tone(1, 64)
    path = record(tmp_path, [tone(10, 256), slow], (4, 1), names=("Fp1", "SpO2"))
    data = np.fromfile(tmp_path / "r.dat", "<i2").reshape(-1, 5)
    data[7, 4] = -32768  # missing
    data.tofile(tmp_path / "r.dat")
    recording = read_recording(path)
    assert np.flatnonzero(np.isnan(recording.signal[1])).tolist() == [28, 29, 30, 31]
    held = np.repeat(np.round(slow, 1), 4)
    np.testing.assert_allclose(recording.signal[1, 32:], held[32:], atol=1e-3)


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
def test_annotations_count_frames_or_by_their_own_clock(tmp_path):
    path = record(tmp_path, [tone(10, 256)], (4,), names=("ECG",))
    import wfdb

    wfdb.wrann("r", "atr", np.array([64, 640]), ["N", "V"], write_dir=str(tmp_path))
    got = [(e.onset_s, e.label) for e in read_recording(path).events]
    assert got == [(1.0, "N"), (10.0, "V")]
    wfdb.wrann(
        "r", "atr", np.array([256, 2560]), ["N", "V"], fs=256, write_dir=str(tmp_path)
    )
    again = [(e.onset_s, e.label) for e in read_recording(path).events]
    assert again == got


@pytest.mark.parametrize("unit", ["\u00b5V", "\u03bcV"])
def test_a_unit_with_a_greek_letter_is_no_volt(tmp_path, unit):
    signals = [tone(10, 64)]
    recording = read_recording(record(tmp_path, signals, (1,), unit=unit))
    np.testing.assert_allclose(recording.signal, signals, atol=0.06)


def test_a_header_of_more_numbers_than_there_are(tmp_path):
    path = record(tmp_path, [tone(10, 64)], (1,))
    text = path.read_text().replace(" 1280\n", " 5000000000000\n")
    path.write_text(text)
    with pytest.raises(InputError, match="speaks of 5000000000000 samples"):
        read_recording(path)


@pytest.mark.parametrize("head", ["r 2.5 64 1280\n", "r 1 abc 1280\n", "", "\xff\xfe"])
def test_a_header_that_is_none(tmp_path, head):
    path = record(tmp_path, [tone(10, 64)], (1,))
    path.write_bytes(head.encode("latin-1"))
    with pytest.raises(InputError, match="WFDB cannot read the record"):
        read_recording(path)
