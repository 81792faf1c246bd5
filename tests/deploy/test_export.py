"""A run's models as files: what is in the folder, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from eegkd.cli import main
from eegkd.config import preset_config
from eegkd.deploy import export, stablehlo
from eegkd.deploy.export import export_model, real_windows
from eegkd.deploy.graph import make_graph
from eegkd.deploy.load import load_model, open_store
from eegkd.deploy.parity import check_parity, reference
from eegkd.errors import InputError
from eegkd.models import CBraModConfig, DlinkStudentConfig
from eegkd.pipeline.inference import predict_rows
from eegkd.systems import SignalConfig, distilclip_eeg, predict_fn, replace_stage
from eegkd.systems.batches import stage_shapes
from eegkd.systems.channels import as_deployed
from eegkd.systems.dlink.config import TeacherConfig
from eegkd.systems.entry import find
from eegkd.train.weights import load_variables, named_arrays
from tests.support.recordings import write_folder
from tests.support.untrained_runs import DATA, make_run, random_variables, read_config

GRAPH, WEIGHTS = "model.stablehlo", "model.safetensors"
WRITTEN = {GRAPH, WEIGHTS, "README.md", "card.json"}
FORMATS = ("stablehlo", "safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    data = dataclasses.replace(DATA, zscore="train_set")
    return make_run(folder / "run", write_folder(folder / "mine"), data=data)


@pytest.fixture(scope="module")
def config(run):
    return read_config(run)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_verb_writes_what_the_model_says(run, config, capsys):
    formats = ["--format", *FORMATS]
    assert main(["export", str(run), "--runs", "0", *formats]) == 0
    assert "student of distilclip_eeg" in " ".join(capsys.readouterr().out.split())
    folder = run / "student"
    assert names(folder) == WRITTEN
    # A user's own windows, in the unit of the store, without the run's statistics.
    store = open_store(config)
    model = load_model(distilclip_eeg.make_system, config)
    rows = np.arange(5)
    want = predict_rows(model.program, model.variables, store, rows, model.zscore)
    got = stablehlo.load_stablehlo(folder / GRAPH)(np.asarray(store.signal[rows]))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    card = json.loads((folder / "card.json").read_text())
    assert card["units"] == ["uV"] * 5
    assert card["standardised"] is True
    assert {file["name"] for file in card["files"]} == {GRAPH, WEIGHTS}
    text = (folder / "README.md").read_text()
    for said in ("Fp1, C3, Cz, C4, O2", "background, seizure", "64 Hz", "unit uV"):
        assert said in text
    held = named_arrays(load_variables(folder / WEIGHTS))
    assert sum(card["parts"].values()) == sum(x.size for x in held.values())
    # Texts are in the run's file, and the student does not read them.
    assert "frozen/class_vectors" in held
    assert "frozen/texts" not in held


def test_what_the_verb_refuses(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.onnx_file, "_NEEDED", ("json", "no_such_package"))
    refused = {
        "is no run folder": [str(tmp_path)],
        "needs no_such_package: pip install": [str(run), "--format", "onnx"],
        "no finished model 'gru'": [str(run), "--row", "gru"],
        "--runs -1": [str(run), "--runs", "-1"],
    }
    for message, args in refused.items():
        assert main(["export", *args, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_export_is_replaced_and_other_files_are_not(run, config, tmp_path):
    out = tmp_path / "out"
    make = distilclip_eeg.make_system
    export_model(make, config, out, formats=FORMATS, runs=0)
    export_model(make, config, out, formats=("safetensors",), row="teacher", runs=0)
    assert names(out) == WRITTEN - {GRAPH}
    assert names(tmp_path) <= {"out", "xla"}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt"):
        export_model(make, config, out, formats=("safetensors",), runs=0)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["README.md", "model.onnx"])
def test_files_that_are_only_called_as_an_exports_are_kept(config, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    make = distilclip_eeg.make_system
    with pytest.raises(InputError, match=f"holds {name}, .* choose another --out"):
        export_model(make, config, out, formats=("safetensors",), runs=0)
    with pytest.raises(InputError, match="is no folder: choose another --out"):
        export_model(make, config, out / name, formats=("safetensors",), runs=0)
    assert (out / name).read_text() == "mine"


def test_a_wrong_file_leaves_nothing(config, tmp_path, monkeypatch):
    write = stablehlo.to_stablehlo

    def wrong(graph):
        bent = jax.tree.map(lambda x: 1.5 * x, graph.variables.params)
        return write(graph._replace(variables=graph.variables._replace(params=bent)))

    monkeypatch.setattr(export.stablehlo, "to_stablehlo", wrong)
    make = distilclip_eeg.make_system
    with pytest.raises(InputError, match=r"out/model\.stablehlo was not kept.*differs"):
        export_model(make, config, tmp_path / "out", formats=FORMATS, runs=0)
    assert names(tmp_path) <= {"xla"}


def test_a_students_graph_may_not_hold_the_teacher(run, config, tmp_path):
    weights = run / "fold0" / "teacher" / "variables.safetensors"
    teacher = load_variables(weights)

    def make(config):
        system = distilclip_eeg.make_system(config)

        student = system.stages[-1]

        def predict(variables, batch):
            own = student.predict(variables, batch)
            asked = predict_fn(system, "teacher")(teacher, batch)
            return (own + asked) / 2

        return replace_stage(system, student._replace(predict=predict))

    with pytest.raises(InputError, match="would hold teacher/params/"):
        export_model(make, config, tmp_path / "out", formats=FORMATS, runs=0)


def dlink_config(**changes):
    signal = SignalConfig(
        n_chans=3, n_times=400, channels=("C3", "Cz", "C4"), units=("uV",) * 3
    )
    return dataclasses.replace(
        preset_config(find("dlink"), "small"),
        signal=signal,
        teacher=TeacherConfig(
            head="average",
            cbramod=CBraModConfig(filters=5, depth=1, num_heads=2, ffn_dim=8),
        ),
        student=DlinkStudentConfig(mimic_hidden=4, compress_width=8, norm_groups=2),
        **changes,
    )


TWO = pytest.param(("Cz", "C3"), marks=pytest.mark.slow, id="two channels")


@pytest.mark.parametrize("seen", [pytest.param((), id="all"), TWO])
def test_dlinks_student_has_no_router_and_takes_its_own_channels(seen, tmp_path):
    config = dlink_config(student_channels=seen)
    whole = find("dlink").make_system(config)
    trained = stage_shapes(whole, config.signal)["student"].trained
    assert "router" in trained.params
    config = as_deployed(config)
    system = find("dlink").make_system(config)
    shapes = stage_shapes(system, config.signal)["student"].finished
    variables = random_variables(shapes, np.random.default_rng(0))
    shape = (len(seen) or 3, 400)
    example = {"signal": jax.ShapeDtypeStruct(shape, np.float32)}
    graph = make_graph(system, "student", variables, example)
    assert not [name for name in graph.weights if "router" in name]
    path = tmp_path / GRAPH
    path.write_bytes(stablehlo.to_stablehlo(graph))
    windows = 30 * np.random.default_rng(1).normal(size=(4, *shape))
    inputs = {"signal": windows.astype(np.float32)}
    run = stablehlo.load_stablehlo(path)
    assert check_parity("x", run, reference(graph, inputs), inputs).agreement == 1


def test_real_windows_are_of_the_models_channels(config):
    store = open_store(config)
    windows = real_windows(store, ("O2", "Fp1"), num=7)
    assert windows.shape == (7, 2, store.signal.shape[2])
    np.testing.assert_array_equal(windows[0], store.signal[0][[4, 0]])
    np.testing.assert_array_equal(windows[-1], store.signal[len(store) - 1][[4, 0]])
