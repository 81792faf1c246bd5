"""From predictions to results.json, summary.json, the report and the table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from eegkd.data.windows.folds import Fold, leaks_subjects
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.assays import ASSAYS
from eegkd.evaluate.assays.speed import facts_of
from eegkd.evaluate.assays.verdict import notes_of
from eegkd.evaluate.evidence import Cost, Evidence
from eegkd.evaluate.predictions import Predictions
from eegkd.evaluate.report.page import write_page
from eegkd.evaluate.report.terminal import caveats, terminal_table
from eegkd.pipeline.baselines import band_features
from eegkd.pipeline.compiled import Program, inputs_of
from eegkd.pipeline.fit import Fitted
from eegkd.pipeline.folder import read_log, write_json
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.inference import batch_maker, embed_rows, running
from eegkd.systems import LOADED, get_stage
from eegkd.systems.channels import student_columns
from eegkd.typing import Variables


class Judged:
    """Predictions of all trainings, gathered as they finish."""

    def __init__(self) -> None:
        """Starts empty."""
        self.test: dict[str, dict[int, list[Predictions]]] = {}
        self.val: dict[str, dict[int, list[Predictions]]] = {}
        self.kept: dict[str, tuple[Program, Fitted]] = {}
        self.measured: dict[str, list[Mapping[str, Any]]] = {}

    def keep(self, model: str, seed: int, program: Program, fitted: Fitted) -> None:
        """Adds one training of one fold; the first of each model is kept in full."""
        if fitted.val is None or fitted.test is None:
            return  # A stage that is not judged.
        self.add(model, seed, fitted.val, fitted.test)
        self.kept.setdefault(model, (program, fitted))
        self.measured.setdefault(model, []).append(fitted.measured)

    def add(self, model: str, seed: int, val: Predictions, test: Predictions) -> None:
        """Appends the predictions of one fold."""
        self.val.setdefault(model, {}).setdefault(seed, []).append(val)
        self.test.setdefault(model, {}).setdefault(seed, []).append(test)


def judge(
    runs: Judged,
    store: WindowStore,
    folds: Sequence[Fold],
    config: Any,
    record: Mapping[str, Any],
    notes: Sequence[str],
    console: Console,
) -> list[dict[str, Any]]:
    """Writes the results and the report, and prints the table.

    Args:
        runs: Predictions of all folds.
        store: Windows.
        folds: Folds of the store, in the order of `runs`.
        config: Options of the run.
        record: Further fields of summary.json: options, and cost of the run.
        notes: Sentences that the reader must not miss.
        console: Console to print to.

    Returns:
        The rows of results.json.
    """
    evidence = gather(runs, store, folds, config, record, notes)
    results = {a.name: a.run(evidence) if a.applies(evidence) else {} for a in ASSAYS}
    rows = [row for a in ASSAYS if a.applies(evidence) for row in a.rows(evidence)]
    summary = {name: found for name, found in results.items() if found is not None}
    summary |= {
        "bayes": evidence.bayes,
        "leaks_subjects": evidence.leaks,
        "notes": notes_of(evidence),
    }
    folder = Path(config.out).absolute()
    write_json(folder / "results.json", rows)
    write_json(folder / "summary.json", {**summary, **record})
    write_page(folder / "report.html", evidence, results)
    facts = evidence.once(facts_of)
    console.print(terminal_table(rows, facts, evidence.task.metrics))
    for text in caveats(evidence):
        console.print(text)
    return rows


def gather(
    runs: Judged,
    store: WindowStore,
    folds: Sequence[Fold],
    config: Any,
    record: Mapping[str, Any],
    notes: Sequence[str],
) -> Evidence:
    """Collects the evidence that assays read; models are those of the first fold."""
    data = fold_data(store, folds[0])
    split = config.split
    if split != "fixed":
        split = f"{split}, {record['num_folds']} folds"

    def embed(row: str) -> np.ndarray | None:
        if row == "linear":
            return band_features(data, data.fold.test)
        if row not in runs.kept:
            return None
        program, fitted = runs.kept[row]
        return embed_rows(program, fitted.variables, store, data.fold.test, data.zscore)

    def call(row: str, size: int) -> Callable[[], Any] | None:
        program, fitted = runs.kept[row]
        system, stage = program.system, get_stage(program.system, program.stage)
        if stage.scope == "recording":
            return None
        variables = jax.device_put(fitted.variables)
        maker = batch_maker(system, store, stages=running(system, stage))
        batch = inputs_of(system, stage)(maker(np.arange(size)))
        return lambda: jax.block_until_ready(program.predict(variables, batch))

    return Evidence(
        test=runs.test,
        val=runs.val,
        store=store,
        fold=data.fold,
        log=read_log(Path(config.out).absolute() / "metrics.jsonl"),
        measured=runs.measured,
        groups=_groups(runs.kept),
        costs={row: _cost(fitted.variables) for row, (_, fitted) in runs.kept.items()},
        embed=embed,
        call=call,
        title=f"{record['system']} on {store.manifest['corpus']}",
        split=split,
        leaks=any(leaks_subjects(store, fold) for fold in folds),
        seed=config.seed,
        events=config.events,
        columns=student_columns(config),
        notes=notes,
        registered=record["registered"],
        left_out=record["left_out"],
        record=record,
    )


def _cost(variables: Variables) -> Cost:
    loaded = variables.frozen.get(LOADED, {})
    used = jax.tree.leaves((variables.params, variables.state, loaded))
    head = jax.tree.leaves(variables.params.get("head", {}))
    return Cost(sum(int(x.size) for x in used), sum(int(x.size) for x in head))


def _groups(kept: Mapping[str, tuple[Program, Fitted]]) -> dict[str, tuple[str, ...]]:
    """Returns the names of measures by group: one figure per group."""
    found: dict[str, set[str]] = {}
    for program, _ in kept.values():
        for probe in get_stage(program.system, program.stage).probes:
            if probe.group:
                found.setdefault(probe.group, set()).add(probe.term.name)
    return {group: tuple(sorted(names)) for group, names in found.items()}
