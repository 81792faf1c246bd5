import os
import socket
import struct

import numpy as np
import pytest

from eegkd.data import DataConfig
from eegkd.data.folders.listing import list_recordings
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.folders import label, put, put_annotations, read_all, spans


def names(root):
    return [p.relative_to(root).as_posix() for p in list_recordings(root).recordings]


def aside(root):
    found = list_recordings(root).aside
    return {path.relative_to(root).as_posix(): why for path, why in found.items()}


def tag(kind, data, following=0):
    return struct.pack(">iiii", kind, 3, len(data), following) + data


def put_fif(path, following=None, before=None):
    """Writes the tags of a FIF file that say which file goes before and after it."""
    data = tag(100, b"\0" * 20) + tag(300, b"\0" * 4000)
    for role, name in ((1, before), (2, following)):
        if name is not None:
            data += tag(104, struct.pack(">i", 118)) + tag(115, struct.pack(">i", role))
            data += tag(118, name.encode()) + tag(105, struct.pack(">i", 118))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + tag(108, b"", -1))


def test_files_that_a_fif_file_goes_on_in_are_its_parts(tmp_path):
    put_fif(tmp_path / "night_raw.fif", "night_raw-1.fif")
    put_fif(tmp_path / "night_raw-1.fif", "night_raw-2.fif", "night_raw.fif")
    put_fif(tmp_path / "night_raw-2.fif", before="night_raw-1.fif")
    put_fif(tmp_path / "s_split-01_meg.fif", "s_split-02_meg.fif")
    put_fif(tmp_path / "s_split-02_meg.fif", before="s_split-01_meg.fif")
    # Numbered, and nothing leads to them: recordings of their own.
    put_fif(tmp_path / "day-1.fif")
    put_fif(tmp_path / "day-2.fif")
    put_fif(tmp_path / "other" / "night_raw-1.fif")
    assert names(tmp_path) == [
        *("day-1.fif", "day-2.fif", "night_raw.fif", "other/night_raw-1.fif"),
        "s_split-01_meg.fif",
    ]
    assert aside(tmp_path)["night_raw-2.fif"] == "a part of night_raw-1.fif"


def test_references_that_lead_in_a_circle_or_nowhere_end(tmp_path):
    put_fif(tmp_path / "a-1.fif", "a-2.fif")
    put_fif(tmp_path / "a-2.fif", "a-1.fif")
    assert names(tmp_path) == []
    (tmp_path / "b-1.fif").write_bytes(tag(100, b"", 0) + tag(100, b"", 1) * 3)
    (tmp_path / "c-1.fif").write_bytes(tag(100, b"")[:9])
    (tmp_path / "d-1.fif").write_bytes(struct.pack(">iiii", 104, 3, -5, 0))
    (tmp_path / "e-1.fif.gz").write_bytes(b"no gzip")
    assert names(tmp_path) == ["b-1.fif", "c-1.fif", "d-1.fif", "e-1.fif.gz"]


def test_a_night_that_mne_saved_in_parts_is_one_recording(tmp_path):
    import mne

    rng = np.random.default_rng(0)
    info = mne.create_info(["Fz", "Cz"], 500, "eeg")
    signal = 3e-5 * rng.normal(size=(2, 600 * 500))
    raw = mne.io.RawArray(signal, info, verbose="error")
    raw.save(tmp_path / "night_raw.fif", split_size="2MB", verbose="error")
    assert len(list(tmp_path.iterdir())) > 1
    corpus, recordings = read_all(tmp_path)
    assert list(recordings) == ["night_raw.fif"]
    # Another part makes another source, although the first file is the same.
    (source,) = corpus.list_sources(tmp_path)
    names = [name for name, _ in source.info["parts"]]
    assert names == sorted(p.name for p in tmp_path.iterdir())[:-1]
    assert recordings["night_raw.fif"].duration_s == 600


def test_segments_and_samples_belong_to_their_header(tmp_path):
    (tmp_path / "rec.hea").write_text(
        "# made\nrec/3 1 100 300\nrec_a 100\n~ 100\nb 100\n"
    )
    for name in ("rec_a", "b", "own"):
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 100 100\n{name}.dat 16\n")
        (tmp_path / f"{name}.dat").write_bytes(b"\0")
    (tmp_path / "x.vhdr").write_text("[Common Infos]\nDataFile=samples of x.eeg\n")
    (tmp_path / "y.VHDR").write_text("[Common Infos]\nDataFile=$b.eeg\n")
    for name in ("samples of x", "y", "z"):
        (tmp_path / f"{name}.eeg").write_bytes(b"\0")
    assert names(tmp_path) == ["own.hea", "rec.hea", "x.vhdr", "y.VHDR", "z.eeg"]
    assert aside(tmp_path) == {
        "rec_a.hea": "a part of rec.hea",
        "b.hea": "a part of rec.hea",
    }


def test_what_is_no_recording_is_known_by_its_name(tmp_path):
    for name in ("a-epo.fif", "a_eve.fif", "a-ave.fif.gz", "a-cov.fif", "EPO-raw.fif"):
        (tmp_path / name).write_bytes(b"")
    put(tmp_path / "sub-1_desc-clean_eeg.edf")
    put(tmp_path / "sub-1_eeg.edf")
    put(tmp_path / "sub-2_desc-clean_eeg.edf")
    assert names(tmp_path) == [
        *("EPO-raw.fif", "sub-1_eeg.edf", "sub-2_desc-clean_eeg.edf")
    ]
    found = aside(tmp_path)
    assert found["a-epo.fif"] == "epochs"
    assert found["sub-1_desc-clean_eeg.edf"] == "derived from sub-1_eeg.edf"


def test_copies_in_a_bids_data_set_are_left_aside(tmp_path):
    put(tmp_path / "sub-1" / "eeg" / "sub-1_eeg.edf")
    put(tmp_path / "derivatives" / "x" / "sub-1_eeg.edf")
    assert len(names(tmp_path)) == 2
    (tmp_path / "dataset_description.json").write_text("{}")
    assert names(tmp_path) == ["sub-1/eeg/sub-1_eeg.edf"]


def test_links_are_followed_once_and_never_in_a_circle(tmp_path):
    root = tmp_path / "mine"
    put(root / "ben" / "b.edf")
    put(tmp_path / "elsewhere" / "c.edf")
    put(tmp_path / "d.edf")
    (root / "aa").symlink_to("ben")
    (root / "ab.edf").symlink_to("ben/b.edf")
    (root / "cleo").symlink_to(tmp_path / "elsewhere")
    (root / "cleo2").symlink_to(tmp_path / "elsewhere")
    (root / "up").symlink_to("..")
    (root / "ben" / "here").symlink_to(".")
    (root / "ben" / "top").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "zz").symlink_to("/")
    assert names(root) == ["ben/b.edf", "cleo/c.edf"]
    assert aside(root)["ab.edf"] == "a link to b.edf, which is listed"
    assert {"aa", "cleo2", "up", "zz", "ben/here", "ben/top"} <= set(aside(root))


@pytest.mark.parametrize("target", ["../.git/annex/x.edf", "b.edf"])
def test_a_link_without_its_file_is_named_and_the_cure_works(tmp_path, target):
    put(tmp_path / "a.edf")
    (tmp_path / "b.edf").symlink_to(target)
    with pytest.raises(InputError, match=rf"b\.edf is a link to {target}.*datalad get"):
        list_recordings(tmp_path)
    (tmp_path / "b.edf").unlink()
    assert names(tmp_path) == ["a.edf"]


def test_a_linked_folder_that_is_gone_is_told_of(tmp_path):
    put(tmp_path / "a.edf")
    (tmp_path / "ben").symlink_to("/no/such/place")
    corpus, _ = read_all(tmp_path)
    assert corpus.notes == ("Left aside: ben (a link that leads nowhere).",)


def test_no_pipe_or_socket_is_opened(tmp_path):
    put(tmp_path / "a.edf")
    os.mkfifo(tmp_path / "b.edf")
    with pytest.raises(InputError, match=r"b\.edf is a named pipe, not a file"):
        list_recordings(tmp_path)
    (tmp_path / "b.edf").unlink()
    os.mkfifo(tmp_path / "notes.txt")
    assert names(tmp_path) == ["a.edf"]
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv is a named pipe"):
        read_all(tmp_path)
    (tmp_path / "labels.csv").unlink()
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(tmp_path)  # The path of a socket is short.
        made.bind("s.bdf")
        os.chdir(here)
        with pytest.raises(InputError, match=r"s\.bdf is a socket"):
            list_recordings(tmp_path)


def test_a_folder_that_is_called_like_a_file_is_entered(tmp_path):
    put(tmp_path / "export.edf" / "a.edf")
    put(tmp_path / ".hidden" / "b.edf")
    (tmp_path / "x.mff").mkdir()
    (tmp_path / "x.mff" / "signal1.edf").write_bytes(b"")
    assert names(tmp_path) == ["export.edf/a.edf", "x.mff"]


NIGHT = [
    (0, 30, "Sleep stage W"),
    (30, 30, "Sleep stage 2"),
    (60, 900, "Sleep stage ?"),
]


@pytest.mark.parametrize(
    ("signal", "stages"),
    [
        ("SC9001E0-PSG.edf", "SC9001EC-Hypnogram.edf"),
        ("n1.edf", "n1_annotations.edf"),
        ("anna PSG.edf", "anna hypnogram.EDF"),
    ],
)
def test_a_hypnogram_labels_the_recording_beside_it(tmp_path, signal, stages):
    put(tmp_path / signal, seconds=60)
    put_annotations(tmp_path / stages, NIGHT, start=b"01.01.2000.00.00")
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("Sleep stage 2", "Sleep stage W")
    assert list(recordings) == [signal]
    assert f"(first: {stages} for {signal})" in corpus.notes[0]
    assert spans(recordings[signal])[:2] == [
        (0, 30, NIGHT[0][2]),
        (30, 30, NIGHT[1][2]),
    ]
    config = DataConfig(
        **{"corpus": "folder", "root": str(tmp_path), "band": (0.5, 40.0)},
        **{"window_s": 10.0, "workers": 1},
    )
    store = prepare(
        config, tmp_path.with_name(f"{tmp_path.name}-store"), progress=False
    )
    assert list(store.labels) == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("signals", "stages", "start", "why"),
    [
        (["a.edf"], ["b-Hypnogram.edf"], b"01.01.2000.00.00", "of no recording"),
        (
            ["a.edf"],
            ["a-Hypnogram.edf"],
            b"01.01.2000.00.30",
            "a.edf begins at another",
        ),
        (["a.edf", "a-PSG.edf"], ["a-hyp.edf"], b"01.01.2000.00.00", "of no recording"),
        (["a.edf"], ["a-hyp.edf", "a-events.edf"], b"01.01.2000.00.00", "of no recor"),
    ],
)
def test_annotations_in_doubt_are_left_aside_with_a_word(
    tmp_path, signals, stages, start, why
):
    for name in signals:
        put(tmp_path / name)
    for name in stages:
        put_annotations(tmp_path / name, NIGHT, start=start)
    corpus, recordings = read_all(tmp_path)
    assert (sorted(recordings), corpus.classes) == (sorted(signals), ())
    assert "Left aside: " in corpus.notes[0]
    assert why in corpus.notes[0]


def test_a_table_comes_before_a_hypnogram(tmp_path):
    put(tmp_path / "a-PSG.edf")
    put_annotations(tmp_path / "a-Hypnogram.edf", NIGHT)
    label(tmp_path, "file,label\na-PSG.edf,rest\n")
    corpus, recordings = read_all(tmp_path)
    assert spans(recordings["a-PSG.edf"]) == [(0, 6, "rest")]
    assert "a-Hypnogram.edf (annotations; labels.csv is read)" in corpus.notes[0]


def test_a_row_for_a_part_is_refused_with_the_reason(tmp_path):
    put(tmp_path / "a-PSG.edf")
    put_annotations(tmp_path / "a-Hypnogram.edf", NIGHT)
    label(tmp_path, "file,label\na-PSG.edf,rest\na-Hypnogram.edf,rest\n")
    with pytest.raises(
        InputError, match=r"line 3: 'a-Hyp.* of its own \(annotations\)"
    ):
        read_all(tmp_path)
    (tmp_path / "a-Hypnogram.edf").rename(tmp_path / "b-epo.fif")
    label(tmp_path, "file,label\nb-epo.fif,rest\n")
    with pytest.raises(InputError, match=r"line 2: 'b-epo\.fif' .* \(epochs\)"):
        read_all(tmp_path)


def test_two_annotations_on_one_stretch_are_told_of(tmp_path):
    put(tmp_path / "a.edf", annotations=[(0, 3, "N2"), (0, 3, "artefact"), (3, 3, "R")])
    put(tmp_path / "b.edf", annotations=[(0, 3, "N2"), (3, 3, "N2")])
    (note,) = read_all(tmp_path)[0].notes
    assert "1 recordings have two annotations on one stretch (first: a.edf" in note
    assert "'N2', 'artefact'" in note


def test_a_folder_of_annotations_alone_has_no_recording(tmp_path):
    put_annotations(tmp_path / "SC4001EC-Hypnogram.edf", NIGHT)
    with pytest.raises(
        InputError, match=r"no recording.*Hypnogram\.edf is annotations"
    ):
        read_all(tmp_path)
