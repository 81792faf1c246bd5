"""Stages without training: each that predicts has a row of results."""

from collections.abc import Iterator

from eegkd.pipeline.compiled import Program, make_program
from eegkd.pipeline.finished import (
    TEST,
    VAL,
    check_results,
    is_finished,
    read_predictions,
    write_results,
)
from eegkd.pipeline.fit import Fitted, Job, judge_rows
from eegkd.pipeline.jobs import FoldState, Setting, special_outputs, upstream_of
from eegkd.pipeline.schedule import Training
from eegkd.systems.loaded import weight_hashes
from eegkd.systems.outputs import needs_outputs
from eegkd.train.distributed import first_only
from eegkd.train.inputs import variables_hash


def judge_given(
    setting: Setting, state: FoldState
) -> Iterator[tuple[str, Program, Fitted]]:
    """Evaluates a fold's untrained stages once, and saves their predictions.

    Yields:
        Name of the row, program and predictions.

    Raises:
        InputError: If kept predictions are damaged.
    """
    for variant, system in setting.systems.items():
        if variant and setting.same_teacher:
            continue
        for stage in system.stages[:-1]:
            if stage.terms or stage.predict is None:
                continue
            upstream = upstream_of(setting, state, variant, system.stages[-1])
            training = Training(state.data.fold.index, stage.name, stage.name, variant)
            folder = setting.folder / training.place
            program = make_program(system, stage.name, setting.config)
            variables = upstream[stage.name]
            if is_finished(folder):
                done = check_results(folder)
                val, test = (
                    read_predictions(folder / name, state.data.store)
                    for name in (VAL, TEST)
                )
                fitted = Fitted(variables, val, test, done["seconds"])
            else:
                cache = None
                if needs_outputs(system, stage):
                    cache = special_outputs(setting, state, variant, stage, upstream)
                job = Job(training.model, 0, folder, upstream=upstream, cache=cache)
                val, test = judge_rows(program, variables, state.data, job)
                fitted = Fitted(variables, val, test, 0.0)
                loaded = weight_hashes(stage.load) if stage.load else {}
                facts = {
                    "seconds": 0.0,
                    "given": loaded or variables_hash({stage.name: variables}),
                }
                first_only(
                    lambda f=folder, x=fitted, k=facts: write_results(
                        f, None, x.val, x.test, k
                    )
                )
            yield training.model, program, fitted
