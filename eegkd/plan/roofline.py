"""Least time of a step: operations, memory traffic and links at peak rates.

All figures are analytic. No program reaches its peaks, so times are lower bounds.
"""

import math
from typing import NamedTuple

from eegkd.ops.costs import Costs
from eegkd.plan.chips import Chip


class Roofline(NamedTuple):
    """The least seconds of one step.

    Attributes:
        compute_s: Seconds of the operations, at the peak of their width.
        memory_s: Seconds of the traffic to and from the chip's memory.
        interconnect_s: Seconds of the collectives.
        step_s: `max(compute, memory) + interconnect`: the gradient's all-reduce is one
            operation after the backward pass, and overlaps with nothing.
        bound: The largest of the three.
    """

    compute_s: float
    memory_s: float
    interconnect_s: float
    step_s: float
    bound: str


def step_roofline(
    chip: Chip, costs: Costs, num_devices: int, *, sharded_bytes: int = 0
) -> Roofline:
    """Bounds the time of one device's step from below.

    Args:
        chip: The chip it runs on.
        costs: Costs of the step on one device.
        num_devices: Number of devices that share the step.
        sharded_bytes: Bytes of parameters cut over all devices; 0 keeps them whole.
    """
    compute = costs.half_flops / chip.half_flops
    compute += (costs.flops - costs.half_flops) / chip.single_flops
    memory = costs.traffic / chip.memory_rate
    links = _gather_seconds(chip, costs.gathered, num_devices)
    reduced = costs.reduced
    if sharded_bytes and num_devices > 1:
        # Gathered forward and again backward; the gradient is reduced and scattered.
        reduced = max(0, reduced - sharded_bytes)
        links += 3 * _gather_seconds(chip, sharded_bytes / num_devices, num_devices)
    links += _reduce_seconds(chip, reduced, num_devices)
    sides = {"compute": compute, "memory": memory, "interconnect": links}
    bound = max(sides, key=lambda name: sides[name])
    return Roofline(compute, memory, links, max(compute, memory) + links, bound)


def sent_bytes(costs: Costs, num_devices: int, *, sharded_bytes: int = 0) -> int:
    """Counts what one device sends in a step, by ring algorithms.

    A sum of S bytes over N devices sends `2 (N - 1) / N S`, a gather of s bytes per
    device `(N - 1) s`. Of parameters that are cut over the devices,
    `3 (N - 1) / N` of their size: gathered twice, and their gradient scattered.
    """
    others, reduced = num_devices - 1, costs.reduced
    sent = others * costs.gathered
    if sharded_bytes:
        reduced = max(0, reduced - sharded_bytes)
        sent += 3 * others * sharded_bytes // num_devices
    return sent + 2 * others * reduced // num_devices


def _reduce_seconds(chip: Chip, size: float, num_devices: int) -> float:
    """Computes the time of an all-reduce, inside a domain and between domains."""
    inside, domains = _layout(chip, num_devices)
    seconds = 2 * (inside - 1) / inside * size / chip.link_rate
    share = size / inside
    return seconds + 2 * (domains - 1) / domains * share / chip.network_rate


def _gather_seconds(chip: Chip, own: float, num_devices: int) -> float:
    """Computes the time of a gather, between domains, then inside each."""
    inside, domains = _layout(chip, num_devices)
    seconds = (domains - 1) * own / chip.network_rate
    return seconds + (inside - 1) * domains * own / chip.link_rate


def _layout(chip: Chip, num_devices: int) -> tuple[int, int]:
    return min(num_devices, chip.domain), math.ceil(num_devices / chip.domain)
