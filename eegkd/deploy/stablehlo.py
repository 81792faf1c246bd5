"""StableHLO: one file for CPUs, NVIDIA GPUs and TPUs, read back by `jax.export`."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from eegkd.deploy.graph import Graph, symbolic_inputs
from eegkd.typing import Array

PLATFORMS = ("cpu", "cuda", "tpu")
# Arrays of more than 100 elements are printed in hexadecimal, smaller ones in words.
_ARRAY = re.compile(r'dense<"0x([0-9A-F]+)"> : tensor<([0-9x]+)x(f64|f32|f16|bf16)>')
_DTYPES = {"f64": "f8", "f32": "f4", "f16": "f2", "bf16": jnp.bfloat16}


def to_stablehlo(graph: Graph) -> bytes:
    """Lowers a graph for all platforms, with a batch of any size."""
    exporter = jax.export.export(jax.jit(graph.fn), platforms=PLATFORMS)
    return bytes(exporter(*symbolic_inputs(graph)).serialize())


def load_stablehlo(path: Path) -> Callable[..., Array]:
    """Reads a file back as a compiled function of the graph's inputs."""
    return jax.jit(read_exported(path).call)


def read_exported(path: Path) -> jax.export.Exported:
    """Reads a file back as a `jax.export` object: shapes, platforms, module."""
    return jax.export.deserialize(bytearray(path.read_bytes()))


def stablehlo_arrays(exported: jax.export.Exported) -> Iterator[np.ndarray]:
    """Yields the floating-point arrays of more than 100 elements in a module."""
    for digits, shape, kind in _ARRAY.findall(exported.mlir_module()):
        array = np.frombuffer(bytes.fromhex(digits), _DTYPES[kind])
        yield array.reshape([int(size) for size in shape.split("x")])
