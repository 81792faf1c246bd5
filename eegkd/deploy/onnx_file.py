"""ONNX, by jax2onnx; run by onnxruntime. Both are in the extra `export`."""

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from eegkd.deploy.graph import OUTPUT, Graph, plain_operations, symbolic_inputs
from eegkd.errors import InputError

_NEEDED = ("jax2onnx", "onnx", "onnxruntime")


def missing_packages() -> tuple[str, ...]:
    """Returns the names of missing packages that ONNX needs."""
    return tuple(n for n in _NEEDED if importlib.util.find_spec(n) is None)


def package_versions() -> dict[str, str]:
    """Returns the versions of the installed ones."""
    there = (name for name in _NEEDED if name not in missing_packages())
    return {name: importlib.metadata.version(name) for name in there}


def check_packages() -> None:
    """Refuses ONNX where its packages are missing.

    Raises:
        InputError: Naming them and the extra.
    """
    missing = missing_packages()
    if missing:
        raise InputError(
            f'--format onnx needs {", ".join(missing)}: pip install -e ".[export]". '
            "stablehlo and safetensors work without."
        )


def to_onnx(graph: Graph) -> bytes:
    """Converts a graph, with a batch of any size.

    Raises:
        InputError: If packages are missing, or an operation has no counterpart.
    """
    check_packages()
    from jax2onnx import to_onnx as convert  # pyright: ignore[reportMissingImports]

    inputs = symbolic_inputs(graph)
    plain = plain_operations(graph.fn, inputs)
    # It warns of every value whose type it leaves to the runtime to infer.
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model: Any = convert(
            plain,
            inputs,
            model_name="eegkd",
            input_names=list(graph.inputs),
            output_names=[OUTPUT],
        )
    except Exception as error:
        raise InputError(
            f"The graph cannot be written as ONNX ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:200]}): name the other formats with "
            "--format, or change the operation that does not convert."
        ) from error
    finally:
        logger.setLevel(level)
    return model.SerializeToString()


def load_onnx(path: Path, *, threads: int = 0) -> Callable[..., np.ndarray]:
    """Reads a file back as a function of the graph's inputs, on a CPU.

    Args:
        path: The file.
        threads: Threads that an operation may use; 0 is all cores.

    Raises:
        InputError: If packages are missing.
    """
    check_packages()
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]

    def run(*arrays: np.ndarray) -> np.ndarray:
        return session.run(None, dict(zip(names, arrays, strict=True)))[0]

    return run


def onnx_inputs(model: Any) -> list[str]:
    """Returns the names of a file's inputs."""
    held = {array.name for array in model.graph.initializer}
    return [given.name for given in model.graph.input if given.name not in held]


def read_onnx(path: Path) -> Any:
    """Reads a file back as onnx's own `ModelProto`."""
    import onnx  # pyright: ignore[reportMissingImports]

    return onnx.load(path)


def onnx_arrays(model: Any) -> Iterator[np.ndarray]:
    """Yields the floating-point arrays in a file, those of inner graphs too."""
    from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

    tensors = [*_tensors(model.graph)]
    for function in model.functions:
        tensors += _node_tensors(function.node)
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if jnp.issubdtype(array.dtype, np.floating):
            yield array


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
