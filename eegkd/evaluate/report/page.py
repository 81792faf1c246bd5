"""One stand-alone HTML page: results of a run, and the limits of their meaning."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.evaluate.assays import ASSAYS
from eegkd.evaluate.assays.verdict import notes_of, rows_of
from eegkd.evaluate.evidence import Assay, Evidence
from eegkd.evaluate.report.parts import ENVIRONMENT, number, words
from eegkd.host.atomic import write_atomic


def render_page(
    evidence: Evidence, results: Mapping[str, Any], assays: Sequence[Assay] = ASSAYS
) -> str:
    """Formats the page, which needs no other file.

    Args:
        evidence: Results of the run's trainings.
        results: Results of assays, by name; a missing one has no section.
        assays: Assays, in the order of the page.
    """
    return ENVIRONMENT.get_template("page.html.j2").render(
        title=evidence.title,
        leaks=evidence.leaks,
        has_subjects=evidence.manifest["has_subjects"],
        warnings=_warnings(evidence),
        facts=_facts(evidence),
        sections=[
            assay.section(results[assay.name], evidence)
            for assay in assays
            if assay.name in results
        ],
        record=json.dumps(evidence.record, indent=2, default=str, ensure_ascii=False),
    )


def write_page(
    path: str | os.PathLike[str],
    evidence: Evidence,
    results: Mapping[str, Any],
    assays: Sequence[Assay] = ASSAYS,
) -> Path:
    """Writes the page, whole or not at all."""
    return write_atomic(path, render_page(evidence, results, assays))


def _facts(evidence: Evidence) -> dict[str, str]:
    rows = rows_of(evidence, evidence.task.metrics[0])
    facts = {
        "corpus": evidence.manifest["corpus"],
        "split": evidence.split,
        "student seeds": str(max((row["seeds"] for row in rows.values()), default=0)),
        "run seed": str(evidence.seed),
    }
    for metric, value in evidence.bayes.items():
        facts[f"Bayes {words(metric)} of raw windows"] = number(value)
    return facts


def _warnings(evidence: Evidence) -> list[str]:
    metric = evidence.task.metrics[0]
    means = {name: row["mean"] for name, row in rows_of(evidence, metric).items()}
    notes = notes_of(evidence)
    teacher, small = means.get("teacher"), means.get("small_net")
    if teacher is not None and small is not None and teacher <= small:
        notes.append(
            f"The teacher's {words(metric)} is not above that of small_net: "
            "this set cannot show transfer."
        )
    return notes
