"""DLink: what is trained by what, what is left behind, the rows, and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.evaluate.controls import alpha_0, without_teacher
from eegkd.losses import combine, term_means
from eegkd.models import (
    CBraMod,
    CBraModConfig,
    DlinkStudentConfig,
    LabramConfig,
)
from eegkd.models.grid import PATCH
from eegkd.systems import SignalConfig, get_stage, predict_fn, upstream_inputs
from eegkd.systems.dlink import make_system
from eegkd.systems.dlink.config import DlinkConfig, TeacherConfig
from eegkd.systems.dlink.system import deployed
from eegkd.train.inputs import upstream_tensors, with_labelled
from eegkd.typing import StepKeys
from experiments import distilclip_eeg
from experiments.dlink import EXPERIMENT, VARIANTS
from experiments.tables import run_table, vary

SIGNAL = SignalConfig(
    n_chans=3,
    n_times=2 * PATCH,
    rate=200.0,
    classes=("a", "b", "c"),
    channels=("C3", "Cz", "C4"),
    units=("uV",) * 3,
)
CONFIG = DlinkConfig(
    signal=SIGNAL,
    teacher=TeacherConfig(
        head="two_layer",
        cbramod=CBraModConfig(filters=5, depth=2, num_heads=4, ffn_dim=8),
        labram=LabramConfig(depth=1, ffn_dim=8),
    ),
    student=DlinkStudentConfig(
        mimic_hidden=4, compress_width=8, norm_groups=2, dropout=0.0
    ),
)
LAYERS = ("embed", "block_0", "block_1")
RNG = np.random.default_rng(0)
BATCH = {
    "signal": (50 * RNG.normal(size=(4, 3, 2 * PATCH))).astype(np.float32),
    "label": np.array([0, 1, 2, -1], np.int32),
}


def changed(**changes):
    """Makes a system of other options, `group={option: value}`."""
    dotted = {
        f"{group}.{name}": value
        for group, values in changes.items()
        for name, value in values.items()
    }
    return vary(make_system, dotted, CONFIG)


def shapes_of(system):
    made = {}
    for stage in system.stages:

        def init(key, earlier, stage=stage):
            return stage.init(key, BATCH, earlier)

        made[stage.name] = jax.eval_shape(init, jax.random.key(0), dict(made))
    return made


def term_names(system):
    return [term.name for term in system.stages[-1].terms]


@pytest.fixture(scope="module")
def trained():
    """A student and its gradient as a function of the terms' weights, compiled once."""
    system = changed(spec={"site": "both"})
    teacher_stage, stage = system.stages

    @jax.jit
    def start(key):
        teacher = teacher_stage.init(key, BATCH, {})
        return teacher, stage.init(key, BATCH, {"teacher": teacher})

    teacher, student = start(jax.random.key(0, impl="unsafe_rbg"))

    @jax.jit
    def gradient(params, weights):
        upstream = upstream_tensors(system, stage, {"teacher": teacher}, BATCH)
        keys = StepKeys(jax.random.key(1), jax.random.key(2))

        def loss(params):
            variables = student._replace(params=params)
            own, _ = stage.forward(variables, BATCH, upstream, train=True, key=keys)
            tensors = {**upstream, "student": own, "batch": with_labelled(BATCH)}
            terms = [t._replace(weight=weights[t.name]) for t in stage.terms]
            means = term_means(terms, tensors)
            return combine(terms, means, 0)[0], (means, own)

        return jax.grad(loss, has_aux=True)(params)

    return system, student, gradient


def weights_of(system, *names):
    return {name: jnp.float32(name in names) for name in term_names(system)}


def size(tree):
    return sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_the_router_learns_from_its_probe_alone(trained):
    system, student, gradient = trained
    mimic = ("feat", "magnitude", "phase", "compress_magnitude", "compress_phase")
    grads, (means, own) = gradient(student.params, weights_of(system, *mimic))
    router = dict(grads.pop("router"))
    assert size(router["router"]) == 0
    assert size(router["decode"]) > 0
    assert size(grads["embed"]) > 0
    # The head is not on the way to any of them; the compression is, by its decoder.
    assert size(grads["head"]) == 0
    assert size(grads["spatial"]) > 0
    grads, _ = gradient(
        student.params, weights_of(system, "router_probe", "router_entropy")
    )
    router = dict(grads.pop("router"))
    assert size(router["router"]["score"]) > 0
    assert size(grads) + size(router["decode"]) == 0
    assert all(np.isfinite(mean) for mean in means.values())
    np.testing.assert_allclose(own["router_alpha"].sum(axis=1), 1, rtol=1e-5)


def test_a_finished_student_reads_the_signal_alone(trained):
    system, student, gradient = trained
    stage = system.stages[-1]
    finished = stage.finish(student)
    assert set(student.params) - set(finished.params) == {"router"}
    bare = jax.eval_shape(
        lambda key: stage.init(key, BATCH, {}), jax.random.key(0)
    ).params
    assert jax.tree.structure(bare) == jax.tree.structure(finished.params)
    assert system.inputs == ("signal",)
    signal = {"signal": BATCH["signal"]}
    probabilities = jax.jit(predict_fn(system, "student"))(finished, signal)
    _, (_, own) = gradient(student.params, weights_of(system, "ce"))
    want = jax.nn.softmax(own["logits"])
    np.testing.assert_allclose(probabilities, want, rtol=1e-4, atol=1e-6)


def test_controls_take_router_and_decoder_for_the_teachers(trained):
    system, _, _ = trained
    weights = {term.name: term.weight for term in alpha_0(system).stages[-1].terms}
    assert weights.pop("ce") == 1
    assert set(weights.values()) == {0.0}
    assert term_names(without_teacher(system)) == ["ce"]


PROBE = ["router_probe", "router_entropy"]
SPECTRA = ["magnitude", "phase"]


@pytest.mark.parametrize(
    ("name", "terms", "read"),
    [
        ("ce", [], ()),
        ("logit_kd", ["kd"], ("logits",)),
        ("last", ["feat", *SPECTRA], ("block_1",)),
        ("mean", ["feat", *SPECTRA], LAYERS),
        ("static_softmax", ["feat", *SPECTRA, *PROBE], LAYERS),
        ("no_spectral", ["feat", *PROBE], LAYERS),
        ("magnitude", ["feat", "magnitude", *PROBE], LAYERS),
        ("phase", ["feat", "phase", *PROBE], LAYERS),
        ("patch", ["feat", *SPECTRA, *PROBE], LAYERS),
        ("no_probe", ["feat", *SPECTRA, "router_entropy"], LAYERS),
        (
            "compress_only",
            ["feat", "compress_magnitude", "compress_phase", *PROBE],
            LAYERS,
        ),
    ],
)
def test_rows_of_the_ablation(name, terms, read):
    system = VARIANTS[name](CONFIG)
    assert term_names(system) == ["ce", *terms]
    wanted = tuple(f"teacher.{tensor}" for tensor in read)
    assert sorted(upstream_inputs(system.stages[-1])) == sorted(wanted)


@pytest.mark.parametrize("experiment", [EXPERIMENT, distilclip_eeg.EXPERIMENT])
def test_tables_name_rows_that_there_are(experiment, capsys):
    rows = {row for table in experiment.tables.values() for row in table}
    assert rows <= experiment.variants.keys() <= rows | {"ce"}
    assert set(experiment.default_table.values()) <= experiment.tables.keys()
    assert run_table(experiment, ["--table", "huge"]) == 2
    choices = ", ".join((*experiment.tables, *experiment.programs))
    assert f"--table 'huge': choose {choices}." in capsys.readouterr().err


def traced(system):
    """Traces a training step's losses, by shapes alone."""
    stage = system.stages[-1]

    def means(made):
        upstream = upstream_tensors(system, stage, {"teacher": made["teacher"]}, BATCH)
        keys = StepKeys(jax.random.key(1), jax.random.key(2))
        own, _ = stage.forward(made["student"], BATCH, upstream, train=True, key=keys)
        tensors = {**upstream, "student": own, "batch": with_labelled(BATCH)}
        return term_means(stage.terms, tensors)

    made = shapes_of(system)
    return made, jax.eval_shape(means, made)


ROWS = [*list(VARIANTS)[::6], "compress", "both"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ROWS else pytest.mark.nightly)
        for n in VARIANTS
    ],
)
def test_rows_can_be_trained(name):
    system = VARIANTS[name](CONFIG)
    made, means = traced(system)
    assert set(means) == set(term_names(system))
    assert ("decode" in made["student"].params.get("router", {})) == (
        name in ("compress", "both", "compress_only")
    )


def test_labram_teaches_with_a_frozen_backbone():
    teacher = {"name": "labram", "train": "frozen"}
    student = {"temporal_stride": 2, "norm": "batch"}
    system = changed(teacher=teacher, student=student, spec={"site": "compress"})
    made, means = traced(system)
    assert made["teacher"].params.keys() == {"head"}
    assert made["teacher"].frozen.keys() == {"backbone"}
    # 200 features, and one step of the two patches.
    assert made["student"].params["router"]["decode"]["kernel"].shape == (16, 200)
    assert made["student"].state.keys() == {"batch_stats"}
    assert set(means) == {
        *("ce", "feat", "compress_magnitude", "compress_phase"),
        *PROBE,
    }


def test_weights_have_the_sizes_asked_for_and_deployment_needs_no_file(monkeypatch):
    asked = {}

    def load(name, path, **options):
        asked.update(options, name=name, path=path)
        module = CBraMod(dataclasses.replace(CONFIG.teacher.cbramod, **options))
        signal = jax.ShapeDtypeStruct((1, 3, 2 * PATCH), jnp.float32)
        shapes = jax.eval_shape(module.init, jax.random.key(0), signal)
        return module, jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)

    monkeypatch.setattr("eegkd.systems.foundation.load_pretrained", load)
    teacher = dataclasses.replace(CONFIG.teacher, weights="weights.pth", head="average")
    config = dataclasses.replace(CONFIG, teacher=teacher)
    system = make_system(config)
    assert (asked["name"], asked["path"]) == ("cbramod", "weights.pth")
    assert (asked["channels"], asked["scale"]) == (SIGNAL.channels, 0.01)
    stage = get_stage(system, "teacher")
    loaded = stage.load.read()
    made = stage.init(jax.random.key(0), BATCH, {}, loaded)
    assert size(made.params["backbone"]) == 0
    assert size(made.params["head"]) > 0
    assert deployed(config).teacher == dataclasses.replace(teacher, weights="")
    with pytest.raises(InputError, match="other sizes: give --teacher.cbramod.depth 2"):
        changed(
            teacher={
                "weights": "weights.pth",
                "cbramod": CBraModConfig(filters=5, depth=3, num_heads=4, ffn_dim=8),
            }
        )


def test_a_student_of_some_channels_mimics_their_tokens():
    spec = dataclasses.replace(CONFIG.spec, site="both")
    config = dataclasses.replace(CONFIG, student_channels=("c4", "C3"), spec=spec)
    system = make_system(config)
    made, means = traced(system)
    assert made["student"].params["spatial"].shape == (2, 8, 2)
    after = {"compress_magnitude", "compress_phase"}
    assert set(means) == {"ce", "feat", *SPECTRA, *after, *PROBE}
    stage = system.stages[-1]
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: np.float32(0.1 * rng.normal(size=leaf.shape)),
        stage.finish(made["student"]),
    )

    @jax.jit
    def tokens(signal):
        batch = {"signal": signal}
        return stage.forward(variables, batch, {}, train=False, key=None)[0]["tokens"]

    whole = tokens(BATCH["signal"])
    assert whole.shape == (4, 2 * 2, 40)
    without_cz, without_c3 = (
        tokens(BATCH["signal"] * np.float32(keep)[None, :, None])
        for keep in ([1, 0, 1], [0, 1, 1])
    )
    np.testing.assert_array_equal(whole, without_cz)
    assert np.abs(whole - without_c3).max() > 1e-3
    with pytest.raises(InputError, match="--student_channels X: the windows have C3"):
        make_system(dataclasses.replace(CONFIG, student_channels=("X",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": {"rate": 100.0}}, "--data.rate 200"),
        ({"signal": {"n_times": 500}}, "500 samples, and the model takes 2 patches"),
        ({"signal": {"units": ("uV", "uV", "mV")}}, "units are mV, uV"),
        ({"router": {"layers": ("block_7",)}}, "the teacher has embed block_0 block_1"),
        ({"student": {"groups": 3, "filters": 3}}, "teacher's, 40, and has to be"),
        (
            {"teacher": {"name": "labram"}, "signal": {"channels": ("C3", "X", "C4")}},
            "no embedding for X",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        changed(**changes)
