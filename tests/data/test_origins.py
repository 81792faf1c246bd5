import hashlib
import os

from eegkd.data.windows.origins import files_of, hash_of, size_of
from eegkd.host.sealed import hash_json


def test_a_header_goes_with_the_files_of_its_name(tmp_path):
    texts = {
        "a.hea": b"head",
        "a.dat": b"12",
        "a.b.dat": b"3",
        "ab.hea": b"",
        "b.dat": b"",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    os.mkfifo(tmp_path / "a.pipe")
    (tmp_path / "a.folder").mkdir()
    header = tmp_path / "a.hea"
    names = ["a.b.dat", "a.dat", "a.hea"]
    assert [file.name for file in files_of(header)] == names
    assert size_of(header) == 7
    hashes = [hashlib.sha256(texts[name]).hexdigest() for name in names]
    assert hash_of(header) == hash_json(hashes)
    assert files_of(tmp_path / "b.dat") == [tmp_path / "b.dat"]
    (tmp_path / "a.atr").write_bytes(b"later")
    assert len(files_of(header)) == 4


def test_a_folder_is_all_of_its_files(tmp_path):
    (tmp_path / "x.mff" / "in").mkdir(parents=True)
    (tmp_path / "x.mff" / "in" / "signal").write_bytes(b"123")
    assert size_of(tmp_path / "x.mff") == 3


def test_many_headers_in_one_folder_are_listed_once(tmp_path, monkeypatch):
    for i in range(50):
        (tmp_path / f"{i}.hea").touch()
        (tmp_path / f"{i}.dat").touch()
    listed = []
    iterdir = type(tmp_path).iterdir
    monkeypatch.setattr(
        type(tmp_path), "iterdir", lambda path: listed.append(path) or iterdir(path)
    )
    for i in range(50):
        assert len(files_of(tmp_path / f"{i}.hea")) == 2
    assert len(listed) == 1
