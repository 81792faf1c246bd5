"""Published peak figures of accelerators, and this machine's own peak, measured."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.errors import InputError

_NVIDIA_NOTE = "dense (half of the sparse figure); NVLink and network one way"
_TPU_NOTE = "interconnect one way, half of the bidirectional figure"


class Chip(NamedTuple):
    """One accelerator, per chip.

    Attributes:
        name: Name on the command line.
        half_flops: Peak of dense bfloat16 products, operations per second.
        single_flops: Rate of float32 products at JAX's default precision: TF32 on these
            GPUs, one bfloat16 pass on a TPU.
        memory_bytes: High-bandwidth memory.
        memory_rate: Memory bandwidth, bytes per second.
        link_rate: Rate to chips of the same domain, bytes per second each way.
        domain: Chips joined by that link: a server's GPUs, a pod's TPUs.
        network_rate: A chip's share of the network between domains, bytes per second
            each way.
        source: Publication of the figures.
    """

    name: str
    half_flops: float
    single_flops: float
    memory_bytes: float
    memory_rate: float
    link_rate: float
    domain: int
    network_rate: float
    source: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "A100",
            *(312e12, 156e12),
            *(80e9, 2.039e12),
            *(300e9, 8, 25e9),
            "NVIDIA A100 Tensor Core GPU data sheet (80 GB SXM); DGX A100 data sheet, "
            f"8 x 200 Gb/s; {_NVIDIA_NOTE}",
        ),
        Chip(
            "H100",
            *(989.4e12, 494.7e12),
            *(80e9, 3.35e12),
            *(450e9, 8, 50e9),
            "NVIDIA H100 Tensor Core GPU data sheet (SXM5) and architecture white "
            f"paper; DGX H100 data sheet, 8 x 400 Gb/s; {_NVIDIA_NOTE}",
        ),
        Chip(
            "H200",
            *(989.4e12, 494.7e12),
            *(141e9, 4.8e12),
            *(450e9, 8, 50e9),
            "NVIDIA H200 Tensor Core GPU data sheet (SXM); DGX H200 data sheet, "
            f"8 x 400 Gb/s; {_NVIDIA_NOTE}",
        ),
        Chip(
            "v5e",
            *(197e12, 197e12),
            *(16e9, 819e9),
            *(200e9, 256, 6.4e12 / 8 / 256),
            "Google Cloud documentation, TPU v5e (docs.cloud.google.com/tpu/docs/v5e); "
            f"{_TPU_NOTE}; network of a pod over its chips",
        ),
        Chip(
            "v5p",
            *(459e12, 459e12),
            *(95 * 2**30, 2.765e12),
            *(600e9, 8960, 50e9 / 8),
            "Google Cloud documentation, TPU v5p (docs.cloud.google.com/tpu/docs/v5p); "
            f"{_TPU_NOTE}",
        ),
        Chip(
            "v6e",
            *(918e12, 918e12),
            *(32e9, 1.6e12),
            *(400e9, 256, 25.6e12 / 8 / 256),
            "Google Cloud documentation, TPU v6e (docs.cloud.google.com/tpu/docs/v6e); "
            f"{_TPU_NOTE}; network of a pod over its chips",
        ),
    )
}
_BY_KIND = {
    "v5e": ("v5 lite", "v5e"),
    "v5p": ("v5p", "tpu v5"),
    "v6e": ("v6 lite", "v6e"),
    "A100": ("a100",),
    "H100": ("h100",),
    "H200": ("h200",),
}


class Peak(NamedTuple):
    """The rate that a program's operations are compared with.

    Attributes:
        flops: Operations per second, of all devices in use together.
        source: Kind of figure.
    """

    flops: float
    source: str


def get_chip(name: str) -> Chip:
    """Returns the chip called `name`, in any case; "TPU v5e" is v5e.

    Raises:
        InputError: If there is none.
    """
    wanted = name.lower().removeprefix("tpu").strip(" -_")
    for chip in CHIPS.values():
        if chip.name.lower() == wanted:
            return chip
    raise InputError(f"There is no chip {name!r}: --chip is one of {', '.join(CHIPS)}.")


def chip_of(kind: str) -> Chip | None:
    """Finds the chip that a device's `device_kind` names; None if it is not listed."""
    for name, words in _BY_KIND.items():
        if any(word in kind.lower() for word in words):
            return CHIPS[name]
    return None


def peak_of(devices: list[Any], dtype: str) -> Peak | None:
    """Returns the peak of the devices: of the table, or on a CPU measured.

    Returns:
        None on an accelerator that is not listed.
    """
    if devices[0].platform == "cpu":
        # Forced host devices share the cores: together they have one machine's peak.
        rate = matmul_rate(dtype)
        return Peak(rate, f"measured on this CPU: a product of {dtype} matrices")
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        return None
    rate = chip.half_flops if dtype == "bfloat16" else chip.single_flops
    return Peak(len(devices) * rate, f"{chip.name}, {chip.source}")


def matmul_rate(dtype: str, *, size: int = 2048, repeats: int = 5) -> float:
    """Measures operations per second of a square product, the best of a few."""
    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(x, x))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(multiply(x, x))
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)
