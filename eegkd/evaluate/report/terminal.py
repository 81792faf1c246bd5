"""Terminal output of a judged run: the table and its caveats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from eegkd.evaluate.assays.speed import Facts
from eegkd.evaluate.assays.verdict import basis_of, head_room_note, summary_of
from eegkd.evaluate.evidence import Evidence
from eegkd.evaluate.learned import unlearned_notes
from eegkd.evaluate.report.verdicts import no_room_lines, short_verdict
from eegkd.evaluate.rows import in_order
from eegkd.host.terminal import bold

SHORT_NAMES = {
    **{"balanced_accuracy": "bal acc", "accuracy": "acc", "macro_f1": "F1"},
    **{"macro_auroc": "AUROC", "macro_ap": "AP", "negative_bce": "-BCE"},
}


def terminal_table(
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Facts],
    metrics: Sequence[str],
) -> Table:
    """Formats rows of results.json as a table; the verdict is on the first metric."""
    title = f"Test subjects; verdict of the student on {metrics[0].replace('_', ' ')}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column(
        SHORT_NAMES.get(metrics[0], metrics[0]), justify="right", no_wrap=True
    )
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for metric in metrics[1:]:
        table.add_column(SHORT_NAMES.get(metric, metric), justify="right", no_wrap=True)
    for name in ("params", "windows/s", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["metric"]] = row
    for model in in_order(by_model):
        own, fact = by_model[model], facts.get(model, Facts())
        first = own[metrics[0]]
        known = first["low"] is not None
        table.add_row(
            model,
            _number(first["mean"], ".3f"),
            f"{first['low']:.3f} to {first['high']:.3f}" if known else "-",
            short_verdict(first),
            *(_number(own[metric]["mean"], ".3f") for metric in metrics[1:]),
            _number(fact.parameters, ",d"),
            _number(fact.windows_per_s, ",.0f"),
            _number(fact.latency_ms, ".2f"),
        )
    return table


def caveats(evidence: Evidence) -> Iterator[str | Text]:
    """Lists the caveats that belong to the results table."""
    summary, metric = evidence.once(summary_of), evidence.task.metrics[0]
    yield from basis_of(evidence)
    yield from head_room_note(summary, metric)
    yield from no_room_lines(summary, metric)
    yield from unlearned_notes(evidence)
    if evidence.bayes:
        best = ", ".join(
            f"{name} {value:.3f}" for name, value in evidence.bayes.items()
        )
        yield (
            "Best possible (Bayes posterior of raw windows; models see what "
            f"preprocessing leaves of them): {best}."
        )
    if evidence.leaks:
        yield bold("Leaks subjects:") + " windows of one person on both sides."
    if not evidence.manifest["has_subjects"]:
        yield (
            "This corpus names no subjects, so no subject split exists: folds are by "
            "recording, are the units of the statistics, and say nothing about new "
            "people."
        )


def _number(value: int | float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
