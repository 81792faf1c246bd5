"""Sizes and speeds of the trained models; the table of results shows them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from eegkd.evaluate.efficiency import latency, throughput
from eegkd.evaluate.evidence import Assay, Evidence, always

BATCH = 256
RUNS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Size and speed of a model; None where it was not measured.

    Attributes:
        parameters: Parameters that prediction reads.
        head: Those in a head; 0 where the model has no separate one.
        windows_per_s: Throughput in large batches.
        latency_ms: Time for a single window.
    """

    parameters: int | None = None
    head: int = 0
    windows_per_s: float | None = None
    latency_ms: float | None = None


def facts_of(evidence: Evidence) -> dict[str, Facts]:
    """Counts parameters and times each trained model: batch 1 and batch 256."""
    size = min(BATCH, len(evidence.store))
    found = {}
    for row, cost in evidence.costs.items():
        found[row] = Facts(parameters=cost.parameters, head=cost.head)
        one, many = evidence.call(row, 1), evidence.call(row, size)
        if one is None or many is None:
            continue
        timing = latency(one, warmup=10, runs=RUNS)
        found[row] = dataclasses.replace(
            found[row],
            windows_per_s=throughput(many, size, seconds=0.3),
            latency_ms=timing["p50_ms"],
        )
    return found


def _section(result: Mapping[str, Any], evidence: Evidence) -> str:
    del result, evidence
    return ""


ASSAY = Assay(
    name="facts",
    applies=always,
    run=lambda evidence: evidence.once(facts_of),
    section=_section,
)
