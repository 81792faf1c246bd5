import json

import pytest

from eegkd.errors import InputError
from eegkd.host import sealed as module
from eegkd.host.sealed import (
    bad_files,
    first_difference,
    format_bytes,
    hash_file,
    hash_files,
    parse_sealed,
    read_sealed,
    seal,
    sealed,
)

CURE = "Make it anew."


def write(file, record):
    file.write_text(seal(record))
    return file


def read(file, **options):
    return read_sealed(file, "Box", **({"version": 1, "cure": CURE} | options))


def test_a_record_comes_back_with_its_hash(tmp_path):
    record = {"version": 1, "shape": (2, 3), "counts": {1: "a"}}
    file = write(tmp_path / "box.json", record)
    back = read(file)
    assert back == sealed(record) == sealed(back)
    assert back["shape"] == [2, 3]
    assert back["counts"] == {"1": "a"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", r"box\.json is not JSON"),
        ("[" * 100_000, r"box\.json is not JSON"),
        ("[]", r"box\.json was altered"),
        ("\x00", r"box\.json is not JSON"),
        (json.dumps({"version": 1}), r"box\.json was altered \(sha256 differs\)"),
        (seal({"version": 2}), "version is 2, this library reads 1"),
        (seal({"version": 1}).replace("1,", "1, "), ""),
        (seal({"version": 1, "a": 3}).replace("3", "4"), r"box\.json was altered"),
    ],
)
def test_what_is_no_such_record_is_refused(tmp_path, content, named):
    file = tmp_path / "box.json"
    file.write_text(content)
    if not named:
        assert read(file)["version"] == 1
        return
    with pytest.raises(InputError, match=f"^Box {tmp_path}: .*{named}.*{CURE}$"):
        read(file)


def test_a_missing_record_and_one_that_is_no_text(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "box.json")
    (tmp_path / "box.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not JSON"):
        read(tmp_path / "box.json")


def test_a_field_is_named_before_the_hash_of_all(tmp_path):
    file = tmp_path / "box.json"
    file.write_text(seal({"version": 1, "rate": 3}).replace("3", "4"))
    with pytest.raises(InputError, match="rate is 4"):
        read(file, check=lambda record: f"rate is {record['rate']}")
    with pytest.raises(ValueError, match="was altered"):
        parse_sealed(file, check=lambda record: "")


@pytest.mark.parametrize("sizes", [True, False])
def test_files_are_compared_with_their_record(tmp_path, sizes):
    for name in ("a", "b/c", "gone", "cut"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345678")
    hashes = hash_files(tmp_path)
    assert list(hashes) == ["a", "b/c", "cut", "gone"]
    files = {n: {"bytes": 8, "sha256": h} if sizes else h for n, h in hashes.items()}
    assert bad_files(tmp_path, files) == {}
    (tmp_path / "gone").unlink()
    (tmp_path / "cut").write_bytes(b"1234567")
    (tmp_path / "b/c").write_bytes(b"12345679")
    words = "altered (sha256 differs)" if sizes else "cut or altered"
    cut = "has 7 bytes, not 8" if sizes else f"was {words}"
    want = {"b/c": f"was {words}", "cut": cut, "gone": "is missing"}
    assert bad_files(tmp_path, files) == want
    del want["b/c"]
    if not sizes:
        del want["cut"]
    assert bad_files(tmp_path, files, "size") == want


def test_a_file_that_was_altered_is_never_remembered_as_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_found_whole", set())
    file = tmp_path / "a"
    file.write_bytes(b"1234")
    files = {"a": {"bytes": 4, "sha256": hash_file(file)}}
    assert not bad_files(tmp_path, files, "once")
    file.write_bytes(b"1235")
    assert bad_files(tmp_path, files, "once")
    assert bad_files(tmp_path, files, "once")


def test_the_first_difference():
    assert first_difference({"a": 1}, {"a": 1}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == ("a.b", 1, 2)
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == ("a.b", 1, None)
    assert first_difference({"a": 1, "z": 1}, {"z": 2, "a": 2}) == ("z", 1, 2)
    assert first_difference({"a": {"b": 1}}, {"a": 3}) == ("a", {"b": 1}, 3)
    assert first_difference(1, 2) == ("", 1, 2)
    one, two = {"a": {"b": 1}}, {"a": {"b": 2}}
    assert first_difference(one, two, depth=1) == ("a", {"b": 1}, {"b": 2})


@pytest.mark.parametrize(
    ("num", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")],
)
def test_bytes_for_people(num, words):
    assert format_bytes(num) == words
