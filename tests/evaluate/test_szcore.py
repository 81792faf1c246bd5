import datetime
import math
import os

import pytest

from eegkd.errors import InputError
from eegkd.evaluate.events import Detection
from eegkd.evaluate.szcore import COLUMNS, read_szcore_tsv, write_szcore_tsv

START = datetime.datetime(2024, 2, 29, 23, 59, 5)


def test_events_survive_a_file(tmp_path):
    events = (
        Detection(12.0, 10.5, 0.8125, "sz"),
        Detection(100.25, 20.0, label="sz_foc"),
    )
    path = write_szcore_tsv(
        tmp_path / "sub-01" / "a_events.tsv",
        events,
        duration_s=500.0,
        date_time=START,
        channels=("Fp1-F3", "F3-C3"),
    )
    lines = path.read_text().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert lines[1] == (
        "12.00\t10.50\tsz\t0.8125\tFp1-F3,F3-C3\t2024-02-29 23:59:05\t500.00"
    )
    back = read_szcore_tsv(path)
    assert (back.duration_s, back.date_time) == (500.0, START)
    assert back.events[0] == events[0]
    assert math.isnan(back.events[1].confidence)
    assert [p.name for p in path.parent.iterdir()] == ["a_events.tsv"]


def test_no_seizure_is_one_background_row(tmp_path):
    path = write_szcore_tsv(tmp_path / "e.tsv", [], duration_s=60.0)
    rows = path.read_text().splitlines()[1:]
    assert rows == ["0.00\t60.00\tbckg\tn/a\tall\tn/a\t60.00"]
    assert read_szcore_tsv(path) == ((), 60.0, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset\tduration\n1\t2\n", "no column eventType"),
        ("\t".join(COLUMNS) + "\n", "has no row"),
        ("\t".join(COLUMNS) + "\nx\t2\tsz\tn/a\tall\tn/a\t9\n", "line 2: onset is 'x'"),
        ("\t".join(COLUMNS) + "\n1\t2\tsz\n", "line 2: confidence is None"),
        ("\t".join(COLUMNS) + "\n1\t2\tsz\t1\tall\tnoon\t9\n", "dateTime is 'noon'"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "e.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_szcore_tsv(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write .*choose another folder"):
        write_szcore_tsv(tmp_path / "file" / "e.tsv", [], duration_s=1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_leaves_nothing(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        write_szcore_tsv(tmp_path / "e.tsv", [], duration_s=1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "1e999", ""])
def test_a_time_that_is_no_number_is_refused(tmp_path, number):
    path = tmp_path / "a.tsv"
    row = (number, "10", "sz", "0.9", "all", "n/a", "60")
    path.write_text("\t".join(COLUMNS) + "\n" + "\t".join(row) + "\n")
    with pytest.raises(InputError, match=f"a.tsv, line 2: onset is '{number}'"):
        read_szcore_tsv(path)


def test_what_is_no_table_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    for content in (b"\xff\xfe\x00", b"onset\t" + bytes(200_000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.tsv"):
            read_szcore_tsv(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_szcore_tsv(tmp_path / "none.tsv")
