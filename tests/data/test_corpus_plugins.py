"""A corpus is one file, here or in a distribution of someone else's."""

import subprocess
import sys

import numpy as np
import pytest

from eegkd.commands.options import with_root
from eegkd.data import DataConfig, corpora, get_corpus
from eegkd.data.corpora import corpus_names
from eegkd.data.windows.cutting import resolve_config
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError

TOY = """
import numpy as np
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.recording import Event, Recording

def list_sources(root):
    return tuple(Source(p.stem, p, subject=p.stem) for p in sorted(root.glob("*.npy")))

def read(source):
    return Recording(
        signal=np.load(source.path), channels=("Fz", "Cz"), kinds=("eeg",) * 2,
        units=("uV",) * 2, rate=100.0, subject=source.subject,
        events=(Event(onset_s=0.0, duration_s=8.0, label="task"),),
    )

CORPUS = Corpus(
    name="NAME", classes=("task",), background=None, list_sources=list_sources,
    read=read, defaults={"rate": 100.0, "band": (0.0, 0.0)}, collection="toys",
)
"""


@pytest.fixture
def forget(monkeypatch):
    """Forgets modules that a test imports, when it ends."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "toy" in name:
            del sys.modules[name]


@pytest.fixture
def install(tmp_path, monkeypatch, forget):
    """Installs a distribution of one module whose entry points name corpora."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def write(distribution, points, source=TOY):
        about = tmp_path / "site" / f"{distribution}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (about / "entry_points.txt").write_text(f"[eegkd.corpora]\n{lines}\n")
        (tmp_path / "site" / f"{distribution}.py").write_text(source)

    return write


def write_recordings(collection):
    (collection / "toys").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        signal = rng.normal(scale=20, size=(2, 800)).astype(np.float32)
        np.save(collection / "toys" / f"{name}.npy", signal)


def check_found(name, tmp_path, monkeypatch):
    assert name in corpus_names()
    write_recordings(tmp_path / "real")
    monkeypatch.setenv("EEGKD_REAL_DATA", str(tmp_path / "real"))
    config = with_root(DataConfig(corpus=name, workers=1, unit="mV", world="null"))
    assert config.root == str(tmp_path / "real" / "toys")
    store = prepare(config, tmp_path / "store", progress=False)
    assert (store.manifest["corpus"], len(store)) == (name, 4)
    settings = store.manifest["preprocessing"]
    assert settings["unit"] == "mV"
    assert not {"world", "seed", "root"} & set(settings)


def test_a_file_in_the_folder_is_a_corpus(tmp_path, monkeypatch, forget):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "toy_file.py").write_text(TOY.replace("NAME", "toy_file"))
    (tmp_path / "more" / "_toy.py").write_text("raise RuntimeError('a shared part')")
    path = [*corpora.__path__, str(tmp_path / "more")]
    monkeypatch.setattr(corpora, "__path__", path)
    assert "_toy" not in corpus_names()
    check_found("toy_file", tmp_path, monkeypatch)


def test_an_entry_point_is_a_corpus(tmp_path, monkeypatch, install, capsys):
    install("toy_one", {"mine": "toy_one"}, TOY.replace("NAME", "mine"))
    check_found("mine", tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"tusz is unknown; .*, mine, mumtaz2016"):
        get_corpus("tusz")
    from eegkd.cli import main

    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    said = capsys.readouterr().out.translate(str.maketrans("│", " "))
    assert "found: arrays, bciciv2a, bids, bonn" in " ".join(said.split())
    assert "mine, mumtaz2016, scalp, synthetic)" in " ".join(said.split())


def test_a_plugin_is_imported_only_when_it_is_asked_for(install):
    install("toy_bad", {"bad": "toy_bad", "gone": "toy_none"}, "import no_such_toy")
    assert {"bad", "gone"} < set(corpus_names())
    assert get_corpus("bonn").name == "bonn"
    with pytest.raises(InputError, match=r"corpus bad .*toy_bad .*no_such_toy.*Mend"):
        get_corpus("bad")
    with pytest.raises(InputError, match=r"corpus gone .*toy_bad .*toy_none"):
        get_corpus("gone")


def test_a_plugin_that_declares_nothing_is_refused(install):
    install("toy_empty", {"empty": "toy_empty"}, "")
    with pytest.raises(InputError, match=r"empty .*neither CORPUS nor make_corpus"):
        get_corpus("empty")


def test_a_name_that_is_taken_is_refused(install):
    install("toy_one", {"mine": "toy_one", "bonn": "toy_one"})
    with pytest.raises(InputError, match=r"bonn of .* toy_one .*eegkd has taken"):
        get_corpus("bonn")
    assert get_corpus("mine").classes == ("task",)
    assert corpus_names().count("bonn") == 1
    install("toy_two", {"mine": "toy_two"})
    with pytest.raises(InputError, match=r"mine of .* toy_\w+ .*toy_\w+ has taken"):
        get_corpus("mine")


LIGHT = """
import sys
from eegkd.data import corpora
corpora.corpus_names()
corpora.get_corpus("bonn")
wanted = {"eegkd.data.corpora", "eegkd.data.corpora.bonn"}
loaded = {name for name in sys.modules if name.startswith("eegkd.data.corpora")}
sys.exit(str(loaded) if loaded != wanted or "jax" in sys.modules else 0)
"""


def test_no_other_corpus_is_imported():
    code = [sys.executable, "-c", LIGHT]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("eegmat", ("referential", 200.0, (0.5, 45.0), 50.0, 4.0, 0.0)),
        ("bonn", ("referential", 200.0, (0.5, 40.0), 0.0, 4.0, 0.0)),
        ("scalp", ("referential", 200.0, (0.5, 40.0), 0.0, 4.0, 0.0)),
        ("chbmit", ("double_banana", 200.0, (0.5, 70.0), 60.0, 4.0, 0.5)),
        ("mentalarithmetic", ("referential", 200.0, (0.0, 0.0), 0.0, 5.0, 0.0)),
        ("eegmmidb", ("average", 200.0, (0.3, 0.0), 60.0, 4.0, 0.0)),
        ("bciciv2a", ("average", 200.0, (0.3, 40.0), 0.0, 4.0, 0.0)),
        ("synthetic", ("referential", 100.0, (0.5, 40.0), 0.0, 2.0, 0.0)),
    ],
)
def test_what_a_corpus_leaves_to_the_general_defaults(name, settings):
    config = resolve_config(DataConfig(corpus=name), get_corpus(name))
    names = ("montage", "rate", "band", "notch", "window_s", "overlap")
    assert tuple(getattr(config, field) for field in names) == settings
