"""One graph in every format: read back, audited, and refused where it is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.deploy import onnx_file, stablehlo
from eegkd.deploy.audit import audit_graph
from eegkd.deploy.graph import Graph, plain_operations
from eegkd.deploy.latency import measure_latency
from eegkd.deploy.parity import check_parity, reference
from eegkd.errors import InputError
from eegkd.host.process import num_cores
from eegkd.ops.depthwise import depthwise_conv1d
from eegkd.typing import Variables

C, T, K = 3, 24, 2
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(5, C)).astype(np.float32)
HEAD = RNG.normal(size=(T * C, K)).astype(np.float32) / 8
WINDOWS = RNG.normal(size=(6, C, T)).astype(np.float32)
needs_onnx = pytest.mark.skipif(
    bool(onnx_file.missing_packages()), reason="needs the extra `export`"
)


def depthwise(variables, x):
    """A choice by platform, a derivative rule, padding and a product."""
    y = depthwise_conv1d(jnp.swapaxes(x, 1, 2), variables.params["kernel"])
    y = jnp.pad(jax.nn.relu(y), ((0, 0), (2, 1), (0, 0)), constant_values=0.5)
    y = jax.lax.pad(y, jnp.float32(0), ((0, 0, 0), (-2, -1, 0), (0, 0, 0)))
    logits = y.reshape(x.shape[0], -1) @ variables.params["head"]
    return jax.nn.softmax(logits, axis=-1)


def spectrum(variables, x):
    """Magnitudes by an FFT, which ONNX renders wrongly."""
    bins = jnp.abs(jnp.fft.rfft(x, axis=-1)).reshape(x.shape[0], -1)
    weights = variables.params["head"][: C * (T // 2 + 1)]
    return jax.nn.softmax(bins @ weights, axis=-1)


def fourier(variables, x):
    """The same as products with Fourier matrices."""
    angle = 2 * np.pi * np.outer(np.arange(T), np.arange(T // 2 + 1)) / T
    waves = [np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)]
    bins = jnp.sqrt((x @ waves[0]) ** 2 + (x @ waves[1]) ** 2 + 1e-12)
    weights = variables.params["head"][: C * (T // 2 + 1)]
    return jax.nn.softmax(bins.reshape(x.shape[0], -1) @ weights, axis=-1)


def graph_of(apply):
    variables = Variables({"kernel": KERNEL, "head": HEAD}, {}, {"unread": None})
    shape = jax.ShapeDtypeStruct((C, T), jnp.float32)
    return Graph(apply, variables, {"signal": shape})


def gate(graph, run):
    inputs = {"signal": WINDOWS}
    return check_parity("model.onnx", run, reference(graph, inputs), inputs)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "model.stablehlo"
    path.write_bytes(stablehlo.to_stablehlo(graph_of(depthwise)))
    return path


def test_stablehlo_takes_any_batch_on_any_platform(file):
    found = gate(graph_of(depthwise), stablehlo.load_stablehlo(file))
    assert found.batch_sizes == (1, 3, 6)
    assert found.max_difference < 1e-6
    assert found.agreement == 1
    exported = stablehlo.read_exported(file)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (taken,) = exported.in_avals
    assert taken.shape[1:] == (C, T)


def test_stablehlo_holds_the_weights_alone(file):
    graph = graph_of(depthwise)
    (held,) = stablehlo.stablehlo_arrays(stablehlo.read_exported(file))
    np.testing.assert_array_equal(held, HEAD)
    audit = audit_graph("x", graph, ["signal"], [held], {"teacher/head": HEAD})
    assert audit == (("signal",), KERNEL.size + HEAD.size, 0)


def test_an_audit_finds_what_does_not_belong():
    graph = graph_of(depthwise)
    router = RNG.normal(size=(20, 30)).astype(np.float32)
    foreign = {"teacher/router": router, "teacher/bias": np.zeros(3)}
    with pytest.raises(InputError, match="would hold teacher/router"):
        audit_graph("x", graph, ["signal"], [HEAD, router.T], foreign)
    with pytest.raises(InputError, match="takes signal, tokens where"):
        audit_graph("x", graph, ["signal", "tokens"], [], {})
    other = router + 1
    audit = audit_graph("x", graph, ["signal"], [HEAD.T, other, np.zeros(3)], foreign)
    assert audit.constants == other.size


def test_plain_operations_say_the_same():
    graph = graph_of(depthwise)
    shape = jax.ShapeDtypeStruct(WINDOWS.shape, WINDOWS.dtype)
    plain = plain_operations(graph.fn, [shape])
    jaxpr = jax.make_jaxpr(plain)(WINDOWS)
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    assert not names & {"cond", "platform_index", "custom_vjp_call", "jit", "pad"}
    assert "conv_general_dilated" in names  # The form of other platforms than a CPU.
    want = reference(graph, {"signal": WINDOWS})
    np.testing.assert_allclose(jax.jit(plain)(WINDOWS), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + 1e-3, "differs from the student by 0.001"),
        (lambda y: y * np.nan, "differs from the student by nan"),
        (lambda y: y[:, :1], r"returns the shape \(1, 1\)"),
        (lambda y: y[:2] if len(y) > 2 else y, r"returns the shape \(2, 2\)"),
        (lambda y: [][len(y)], "cannot be run .IndexError"),
    ],
    ids=["numbers", "nan", "shape", "batch", "error"],
)
def test_the_gate_refuses(change, message):
    graph = graph_of(fourier)
    with pytest.raises(InputError, match=message):
        gate(graph, lambda x: change(np.asarray(graph.fn(x))))


@needs_onnx
@pytest.mark.parametrize("apply", [depthwise, fourier])
def test_onnx_takes_any_batch(apply, tmp_path):
    graph, path = graph_of(apply), tmp_path / "model.onnx"
    path.write_bytes(onnx_file.to_onnx(graph))
    assert gate(graph, onnx_file.load_onnx(path)).max_difference < 1e-6
    model = onnx_file.read_onnx(path)
    taken, arrays = onnx_file.onnx_inputs(model), onnx_file.onnx_arrays(model)
    audit = audit_graph("x", graph, taken, arrays, {})
    assert audit.inputs == ("signal",)
    fourier_matrices = 2 * T * (T // 2 + 1)
    assert audit.constants == (fourier_matrices if apply is fourier else 0)


@needs_onnx
def test_the_gate_refuses_a_magnitude_of_an_fft_in_onnx(tmp_path):
    graph, path = graph_of(spectrum), tmp_path / "model.onnx"

    def write_and_compare():
        path.write_bytes(onnx_file.to_onnx(graph))
        gate(graph, lambda *x: onnx_file.load_onnx(path)(*x))

    with pytest.raises(InputError, match="product with Fourier matrices"):
        write_and_compare()


def test_onnx_without_its_packages(monkeypatch):
    monkeypatch.setattr(onnx_file, "_NEEDED", ("json", "no_such_package"))
    with pytest.raises(InputError, match=r"needs no_such_package: pip install.*export"):
        onnx_file.to_onnx(graph_of(depthwise))


@pytest.mark.slow
def test_latency_is_measured_with_one_thread_and_with_all(file, tmp_path):
    window = tmp_path / "window.npz"
    np.savez(window, signal=WINDOWS[:1])
    for threads in (1, num_cores()):
        found = measure_latency("jax", file, window, threads=threads, warmup=2, runs=20)
        assert 0 < found.p50_ms <= found.p95_ms
    with pytest.raises(InputError, match="could not be timed in jax"):
        measure_latency("jax", tmp_path / "none", window, threads=1, runs=1)
