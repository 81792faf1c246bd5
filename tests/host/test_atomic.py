import errno
import subprocess
import sys
import textwrap

import pytest

from eegkd.errors import InputError, is_full, output_errors, reason_of
from eegkd.host import atomic as files
from eegkd.host.atomic import (
    remove_own,
    remove_parts,
    sole_writer,
    sync_tree,
    write_atomic,
)
from tests.support.small_disk import fill, small_disk


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = files.os.fsync, files.Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda n: events.append("sync") or fsync(n))
    monkeypatch.setattr(
        files.Path, "replace", lambda *a: events.append("name") or replace(*a)
    )
    write_atomic(tmp_path / "new" / "a.json", "{}")
    assert events == ["sync", "name", "sync"]
    assert (tmp_path / "new" / "a.json").read_text() == "{}"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.json"]


def test_sync_reaches_every_file_and_folder(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    seen = []
    monkeypatch.setattr(files, "sync", seen.append)
    sync_tree(tmp_path / "a")
    assert seen[-1] == tmp_path / "a"
    assert set(seen) == {tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    with small_disk(tmp_path, megabytes=1) as folder:
        write_atomic(folder / "a", b"old")
        fill(folder, leave=0)
        with pytest.raises(InputError, match=f"Cannot write {folder / 'a'}: No space"):
            write_atomic(folder / "a", bytes(100_000))
        assert (folder / "a").read_bytes() == b"old"
        assert sorted(p.name for p in folder.iterdir()) == ["a", "filler"]


def test_what_a_kill_left_is_removed(tmp_path):
    write_atomic(tmp_path / "fold0" / "a.json", "{}")
    (tmp_path / "fold0" / ".b.json.123.part").touch()
    remove_parts(tmp_path)
    assert [p.name for p in (tmp_path / "fold0").iterdir()] == ["a.json"]


def test_a_download_of_a_browser_is_no_leftover(tmp_path):
    for name in (".film.part", ".a.b.part", "a.json.12.part", ".a.json.12.part"):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert not (tmp_path / ".a.json.12.part").exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_only_files_of_ours_are_removed_from_a_folder(tmp_path):
    for name in ("mine", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a.json").touch()
    (tmp_path / "mine" / "sub").rmdir()
    (tmp_path / "other" / "sub" / "a.json").touch()
    for name in ("mine", "other", "none"):
        remove_own(tmp_path / name, {"a.json"}.__contains__)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert left == {"other", "other/sub", "other/sub/a.json"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        OSError("19200 requested and 4096 written"),
        ValueError("INTERNAL: No space left on device [tensorstore ...]"),
        RuntimeError("a"),
    ],
)
def test_a_full_disk_is_said_so_whichever_library_raised(tmp_path, error):
    if error.args == ("a",):
        error.__cause__ = ValueError("b")
        error.__cause__.__context__ = OSError(errno.ENOSPC, "x")
    assert is_full(error)
    said = reason_of(error)
    assert said in ("No space left on device", "Disk quota exceeded")
    if isinstance(error, OSError):
        with (
            pytest.raises(InputError, match=f"{said}.*make room"),
            output_errors(tmp_path),
        ):
            raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "x"), "Permission denied. Choose another --out"),
        (FileNotFoundError(errno.ENOENT, "x"), "removed meanwhile: run the same"),
        (OSError("odd"), r"odd\. Choose another"),
    ],
)
def test_nobody_is_told_to_make_room_on_a_disk_that_has_it(tmp_path, error, said):
    assert not is_full(error)
    with pytest.raises(InputError, match=said) as raised, output_errors(tmp_path):
        raise error
    assert "room" not in str(raised.value)


HOLD = """
    import pathlib, sys, time
    from eegkd.host.atomic import sole_writer
    with sole_writer(pathlib.Path(sys.argv[1])):
        print("mine", flush=True)
        time.sleep(600)
"""


def test_a_folder_has_one_writer_even_after_a_kill(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "mine\n"
        with (
            pytest.raises(
                InputError, match=f"{folder} is in use by process {process.pid}"
            ),
            sole_writer(folder),
        ):
            pytest.fail("two writers")
        process.kill()
    assert (folder / ".lock").exists()
    with sole_writer(folder), pytest.raises(InputError), sole_writer(folder):
        pytest.fail("two writers")
    assert list(folder.iterdir()) == []


def test_a_lock_that_its_owner_removed_is_taken_anew(tmp_path, monkeypatch):
    taken = []
    flock = files.fcntl.flock

    def removed_meanwhile(file, flags):
        flock(file, flags)
        if not taken:
            (tmp_path / ".lock").unlink()
        taken.append(file)

    monkeypatch.setattr(files.fcntl, "flock", removed_meanwhile)
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert len(taken) == 2


def test_without_locks_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file, flags):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with sole_writer(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked (No locks available)" in caplog.text
