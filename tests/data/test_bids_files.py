"""A BIDS data set: which files are recordings, and which tables hold for them."""

import numpy as np
import pytest

from eegkd.data import get_corpus
from eegkd.data.recordings.recording import Span
from eegkd.errors import InputError
from tests.support.bids import (
    ids,
    make,
    noise,
    put_channels,
    put_dataset,
    put_events,
    put_json,
    put_recording,
    put_table,
    read_all,
    read_one,
    spans,
)


def test_channels_have_kinds_units_and_marks(tmp_path):
    signal, names = noise(num_channels=5), ("Fz", "X1", "Cz", "T7", "Aux")
    file = make(tmp_path, signal=signal, names=names, dimension="")
    put_channels(
        file,
        ("Fz", "EEG", "µV", "good"),
        ("X1", "HEOG", "mV", "n/a"),
        ("Cz", "eeg", "uV", "bad"),
        ("T3", "ECG", "mV", "good"),
        ("Aux", "RESP", "n/a", "good"),
        ("Status", "TRIG", "n/a", "n/a"),
    )
    _, recording = read_one(tmp_path)
    assert recording.channels == ("Fz", "X1", "Cz", "T7", "Aux")
    assert recording.kinds == ("eeg", "eog", "eeg", "ecg", "misc")
    assert recording.units == ("uV", "uV", "uV", "mV", "n/a")
    assert recording.bad_channels == ("Cz",)
    scale = np.array([1, 1000, 1, 1, 1])[:, None]
    np.testing.assert_allclose(recording.signal / scale, signal, atol=0.1)


def test_a_table_of_some_channels_leaves_the_others_as_they_are(tmp_path):
    put_channels(
        make(tmp_path), ("Cz", "EEG", "bad"), columns=("name", "type", "status")
    )
    _, recording = read_one(tmp_path)
    assert recording.kinds == ("eeg", "eeg", "eog")
    assert recording.bad_channels == ("Cz",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("Fz", "EEG", "mV", "good"), r"'Fz' has units 'mV', but .*--data\.unit uV"),
        (("EOG1", "EOG", "V", "good"), r"'EOG1' has units 'V', but .* Correct"),
        (("Fz", "EEG", "deg", "good"), r"'Fz' is EEG in units of 'deg'"),
        (("F9", "EEG", "uV", "good"), r"channel 'F9' is not in .*it has Fz, Cz, EOG1"),
        (("Fz", "EEGs", "uV", "good"), r"line 2: channel type 'EEGs'"),
        (("Fz", "EEG", "uV", "fine"), r"line 2: status 'fine'"),
        (("Fz", "EEG", "uV"), r"line 2: 3 cells for 4 columns"),
    ],
)
def test_channels_that_contradict_the_file_are_refused(tmp_path, row, words):
    put_channels(make(tmp_path), row)
    with pytest.raises(InputError, match=rf"_channels\.tsv.*{words}"):
        read_all(tmp_path)


def test_the_unit_that_the_user_states_settles_a_contradiction(tmp_path):
    put_channels(make(tmp_path), ("Fz", "EEG", "V", "good"))
    _, recording = read_one(tmp_path, unit="uV")
    assert recording.units == ("uV",) * 3


def test_a_channel_that_is_listed_twice_is_refused(tmp_path):
    put_channels(
        make(tmp_path), ("Fz", "EEG", "uV", "bad"), ("FZ", "EOG", "uV", "good")
    )
    with pytest.raises(InputError, match=r"channel 'FZ' .* listed twice"):
        read_all(tmp_path)


def test_the_nearest_table_holds_and_json_fields_add_up(tmp_path):
    put_dataset(tmp_path)
    for name in ("sub-01_task-x_run-1", "sub-01_task-x_run-2", "sub-02_task-y_run-1"):
        put_recording(tmp_path, f"{name}_eeg.edf")
    head = ("onset", "duration", "trial_type")
    put_table(tmp_path / "events.tsv", head, (0, 9, "root"))
    put_table(tmp_path / "task-x_events.tsv", head, (0, 9, "task"))
    put_table(tmp_path / "sub-01/eeg/sub-01_run-2_events.tsv", head, (0, 9, "run"))
    put_json(tmp_path / "task-x_eeg.json", SamplingFrequency=50, EEGReference="Cz")
    put_json(tmp_path / "sub-01/sub-01_eeg.json", SamplingFrequency=100)
    put_json(tmp_path / "sub-01/eeg/sub-01_run-7_eeg.json", SamplingFrequency=7)
    corpus, recordings = read_all(tmp_path)
    assert [r.events[0].label for r in recordings.values()] == ["task", "run", "root"]
    put_table(tmp_path / "sub-01/eeg/sub-01_task-x_events.tsv", head, (0, 9, "two"))
    with pytest.raises(InputError, match=r"sub-01_run-2_events\.tsv and .* both hold"):
        read_all(tmp_path)
    (tmp_path / ".bidsignore").write_text("sub-01_task-x_events.tsv\n")
    assert len(read_all(tmp_path)[1]) == 3


def test_a_rate_that_is_not_that_of_the_file_is_refused(tmp_path):
    file = make(tmp_path)
    sidecar = put_json(file.with_suffix(".json"), SamplingFrequency=250)
    with pytest.raises(InputError, match=r"100 samples a second, but 250"):
        read_all(tmp_path)
    put_json(sidecar, SamplingFrequency="100 Hz")
    with pytest.raises(InputError, match=r"SamplingFrequency .* is '100 Hz'"):
        read_all(tmp_path)
    put_json(
        sidecar, SamplingFrequency=100.0, PowerLineFrequency=60, EEGReference="n/a"
    )
    with pytest.raises(InputError, match=r"--data\.notch 50.* Use --data\.notch 60"):
        read_all(tmp_path, notch=50.0)
    assert len(read_all(tmp_path, notch=60.0)[1]) == 1
    for text in ("[1]", '{"a": ', "[" * 100_000):
        sidecar.write_text(text)
        with pytest.raises(InputError, match=r"sub-01_task-x_eeg\.json: it is"):
            read_all(tmp_path)


def test_recordings_with_gaps_need_them_marked(tmp_path):
    file = make(tmp_path)
    sidecar = put_json(file.with_suffix(".json"), RecordingType="epoched")
    with pytest.raises(InputError, match="epochs are no recording"):
        read_all(tmp_path)
    put_json(sidecar, RecordingType="discontinuous")
    with pytest.raises(InputError, match="Add a row 'boundary'"):
        read_all(tmp_path)
    put_events(file, (7, 3.5, "boundary"), (1, 2, "rest"))
    _, recording = read_one(tmp_path)
    assert recording.bad_spans == (Span(onset_s=7, duration_s=0, reason="boundary"),)
    assert [e.label for e in recording.events] == ["rest"]


def test_references_that_differ_are_asked_about(tmp_path):
    for person, reference in (("01", "Cz"), ("02", "linked ears"), ("03", "n/a")):
        file = make(tmp_path, f"sub-{person}_task-x_eeg.edf")
        put_json(file.with_suffix(".json"), EEGReference=reference)
    with pytest.raises(InputError, match=r"'cz' and 'linked ears'.*--data\.montage"):
        read_all(tmp_path)
    for montage in ("average", "referential"):
        assert len(read_all(tmp_path, montage=montage)[1]) == 3


def test_parts_of_a_recording_are_one(tmp_path):
    put_dataset(tmp_path)
    whole = noise(seconds=20)
    for part, piece in (("02", whole[:, 1200:]), ("01", whole[:, :1200])):
        put_recording(tmp_path, f"sub-01_task-x_split-{part}_eeg.edf", signal=piece)
    folder = tmp_path / "sub-01" / "eeg"
    head = ("onset", "duration", "trial_type")
    one = put_table(
        folder / "sub-01_task-x_events.tsv", head, (10, 5, "a"), (16, 4, "b")
    )
    _, recording = read_one(tmp_path)
    np.testing.assert_allclose(recording.signal, whole, atol=0.1)
    assert spans(recording) == [(10, 5, "a"), (16, 4, "b")]
    assert ids(tmp_path) == ["sub-01/eeg/sub-01_task-x_split-01_eeg.edf"]
    one.unlink()
    put_table(folder / "sub-01_task-x_split-02_events.tsv", head, (4, 4, "b"))
    with pytest.raises(InputError, match="some of its 2 parts have an events"):
        read_all(tmp_path)
    put_table(folder / "sub-01_task-x_split-01_events.tsv", head, (10, 2, "a"))
    assert spans(read_one(tmp_path)[1]) == [(10, 2, "a"), (16, 4, "b")]
    (folder / "sub-01_task-x_split-01_eeg.edf").unlink()
    with pytest.raises(InputError, match="part split-1 of the recording is not"):
        read_all(tmp_path)


def test_parts_that_name_each_other_are_read_once(tmp_path):
    import mne

    info = mne.create_info(["Fz", "Cz", "Pz"], 500.0, "eeg", verbose="error")
    signal = noise(seconds=500, rate=500)
    raw = mne.io.RawArray(1e-6 * signal, info, verbose="error")
    put_dataset(tmp_path)
    folder = tmp_path / "sub-01" / "eeg"
    folder.mkdir(parents=True)
    raw.save(
        folder / "sub-01_task-x_eeg.fif",
        **{"split_size": "2MB", "split_naming": "bids", "verbose": "error"},
    )
    names = sorted(path.name for path in folder.iterdir())
    assert [name[14:22] for name in names][:2] == ["split-01", "split-02"]
    head = ("onset", "duration", "trial_type")
    table = put_table(folder / "sub-01_task-x_events.tsv", head, (490, 5, "a"))
    _, recording = read_one(tmp_path)
    np.testing.assert_allclose(recording.signal, signal, atol=1e-3)
    assert spans(recording) == [(490, 5, "a")]
    table.unlink()
    for name in names:
        put_events(folder / name, (1, 4, "a"))
    with pytest.raises(InputError, match="put the events of its parts into one"):
        read_all(tmp_path)


def test_parts_must_have_the_same_channels(tmp_path):
    put_dataset(tmp_path)
    put_recording(tmp_path, "sub-01_task-x_split-1_eeg.edf")
    put_recording(tmp_path, "sub-01_task-x_split-2_eeg.edf", names=("Fz", "Pz", "EOG1"))
    with pytest.raises(InputError, match="split-2_eeg.edf: its channels differ"):
        read_all(tmp_path)


def test_derivatives_sources_and_ignored_files_are_no_recordings(tmp_path):
    file = make(tmp_path)
    for place in ("derivatives/clean", "sourcedata", "code", "stimuli"):
        put_recording(tmp_path / place, "sub-09_task-x_eeg.edf")
    put_recording(tmp_path, "sub-01_task-x_desc-clean_eeg.edf")
    put_recording(tmp_path, "sub-02_task-x_eeg.edf")
    put_recording(tmp_path, "sub-03_task-bad_eeg.edf")
    (file.parent / "sub-01_task-x_meg.fif").write_bytes(b"no EEG")
    (file.parent / ".hidden_eeg.edf").write_bytes(b"")
    (tmp_path / ".bidsignore").write_text("# comment\nsub-02/\n**/*_task-bad_*\n")
    assert ids(tmp_path) == ["sub-01/eeg/sub-01_task-x_eeg.edf"]
    (tmp_path / ".bidsignore").write_text("sub-0?\n!sub-02\n!sub-02/**\n")
    assert ids(tmp_path) == ["sub-02/eeg/sub-02_task-x_eeg.edf"]


def test_a_derivative_is_read_where_it_is_named(tmp_path):
    root = tmp_path / "derivatives" / "clean"
    put_dataset(root, DatasetType="derivative")
    for desc in ("clean", "filtered"):
        put_recording(root, f"sub-01_task-x_desc-{desc}_eeg.edf")
    with pytest.raises(InputError, match=r"one recording in two derivatives.*desc-"):
        ids(root)
    want = ["sub-01/eeg/sub-01_task-x_desc-clean_eeg.edf"]
    assert ids(root, entities=("desc-clean",)) == want


def test_entities_choose_recordings(tmp_path):
    put_dataset(tmp_path)
    for name in (
        "sub-01_task-x_run-1_eeg",
        "sub-01_task-x_run-2_eeg",
        "sub-02_task-y_ieeg",
    ):
        put_recording(tmp_path, f"{name}.edf")
    assert len(ids(tmp_path)) == 3
    for words, num in ((("run-1", "run-2"), 2), (("eeg", "run-1"), 1), (("ieeg",), 1)):
        assert len(ids(tmp_path, entities=words)) == num
    with pytest.raises(InputError, match=r"--data\.entities task-z: .*task-x, task-y"):
        ids(tmp_path, entities=("task-z",))
    with pytest.raises(InputError, match="no recording of .* has all of these"):
        ids(tmp_path, entities=("ieeg", "run-1"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub-01/eeg/night1.edf", r"night1\.edf: no BIDS name.*sub-01_task-rest"),
        ("sub-01/eeg/sub-01_my_task_eeg.edf", "no BIDS name"),
        ("sub-01/eeg/sub-01_task-y_eeg.eeg", r"without sub-01_task-y_eeg\.vhdr"),
        ("sub-01/eeg/sub-01_task-y_eeg.fdt", r"without sub-01_task-y_eeg\.set"),
        ("sub-01/eeg/sub-02_task-x_eeg.edf", "of different people"),
        ("sub-01/eeg/sub-01_ses-1_task-x_eeg.edf", "of different people or sessions"),
        ("sub-01/sub-01_task-y_eeg.edf", "a recording outside the folder eeg"),
        ("sub-01/eeg/sub-01_task-y_eeg.edf.gz", r"\.edf\.gz is not read"),
        ("sub-01/eeg/sub-01_task-x_eeg.bdf", "one recording in two forms"),
        ("sub-01/eeg/sub-01_task-x_split-1_eeg.edf", "one recording in two forms"),
        ("Sub-02/eeg/sub-02_task-x_eeg.edf", "Sub-02: no BIDS name"),
        ("sub-1/eeg/sub-1_task-x_eeg.edf", "sub-01 and sub-1 may be one person"),
    ],
)
def test_files_that_are_not_where_they_belong_are_refused(tmp_path, name, words):
    file = make(tmp_path)
    other = tmp_path / name
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=words):
        ids(tmp_path)
    (tmp_path / ".bidsignore").write_text(f"/{name}\n/{name.split('/')[0]}\n!/sub-01\n")
    if not name.startswith("sub-01"):
        assert ids(tmp_path) == ["sub-01/eeg/sub-01_task-x_eeg.edf"]


def test_links_without_their_file_are_named(tmp_path):
    make(tmp_path)
    lost = tmp_path / "sub-02" / "eeg" / "sub-02_task-x_eeg.edf"
    lost.parent.mkdir(parents=True)
    lost.symlink_to("../../.git/annex/objects/x/MD5E-s1--x.edf")
    with pytest.raises(
        InputError, match=r"sub-02_task-x_eeg\.edf: a link .*datalad get"
    ):
        ids(tmp_path)
    assert len(ids(tmp_path, entities=("sub-01",))) == 1
    lost.unlink()
    lost.write_text("/annex/objects/MD5E-s1--x.edf\n")
    with pytest.raises(InputError, match="a pointer to a file that is not here"):
        ids(tmp_path)
    lost.unlink()
    lost.symlink_to("../../sub-01/eeg/sub-01_task-x_eeg.edf")
    with pytest.raises(InputError, match="hold the same samples"):
        ids(tmp_path)
    (tmp_path / "task-x_events.tsv").symlink_to("nowhere")
    lost.unlink()
    with pytest.raises(InputError, match=r"task-x_events\.tsv: a link"):
        ids(tmp_path)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no EEG recording .*--data.corpus folder"):
        get_corpus("bids", tmp_path)
    make(tmp_path / "inner")
    with pytest.raises(InputError, match=f"Set --data.root to {tmp_path}/inner;"):
        get_corpus("bids", tmp_path)
    make(tmp_path)
    ignore = tmp_path / ".bidsignore"
    ignore.write_text("sub-*\n")
    with pytest.raises(InputError, match="what .bidsignore names is left out"):
        get_corpus("bids", tmp_path)
    ignore.unlink()
    for inner in ("sub-01", "sub-01/eeg"):
        with pytest.raises(InputError, match=f"Set --data.root to {tmp_path},"):
            get_corpus("bids", tmp_path / inner)


VHDR = """Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
DataFile={stem}.eeg
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels=2
SamplingInterval=10000
[Binary Infos]
BinaryFormat=INT_16
[Channel Infos]
Ch1=Fz,,0.1,\u00b5V
Ch2=X1,,0.1,\u00b5V
"""
VMRK = """Brain Vision Data Exchange Marker File, Version 1.0
[Common Infos]
DataFile={stem}.eeg
[Marker Infos]
Mk1=New Segment,,1,1,0
Mk2=Stimulus,S  1,301,1,0
"""


def test_brainvision_recordings_are_labelled_by_their_table(tmp_path):
    put_dataset(tmp_path)
    stem, signal = "sub-01_task-x_eeg", np.round(noise(num_channels=2), 1)
    file = tmp_path / "sub-01" / "eeg" / f"{stem}.vhdr"
    put_events(file, (2, 4, "left"), (8, 4, "right"))
    file.write_text(VHDR.format(stem=stem), "utf-8")
    file.with_suffix(".vmrk").write_text(VMRK.format(stem=stem))
    file.with_suffix(".eeg").write_bytes(
        (10 * signal.T).round().astype("<i2").tobytes()
    )
    put_channels(
        file, ("Fz", "EEG", "microV", "bad"), ("X1", "VEOG", "\u03bcV", "good")
    )
    corpus, recording = read_one(tmp_path)
    assert ids(tmp_path) == [f"sub-01/eeg/{stem}.vhdr"]
    assert spans(recording) == [(2, 4, "left"), (8, 4, "right")]
    assert recording.kinds == ("eeg", "eog")
    assert recording.bad_channels == ("Fz",)
    np.testing.assert_allclose(recording.signal, signal, atol=1e-3)


def test_contacts_inside_the_head_are_eeg(tmp_path):
    names = ("LA1", "LA2", "GR1", "ref", "DC1")
    file = make(tmp_path, "sub-01_task-x_ieeg.edf", names=names)
    kinds = ("SEEG", "SEEG", "ECOG", "REF", "MISC")
    rows = [(name, kind, "uV", "good") for name, kind in zip(names, kinds, strict=True)]
    put_channels(file, *rows)
    _, recording = read_one(tmp_path)
    assert recording.kinds == ("eeg", "eeg", "eeg", "misc", "misc")


def test_slower_channels_leave_the_stated_rate_as_it_is(tmp_path):
    file = make(tmp_path, slower={"Fz": 2, "Cz": 2})
    put_json(file.with_suffix(".json"), SamplingFrequency=50)
    _, recording = read_one(tmp_path)
    assert recording.rate == 100
