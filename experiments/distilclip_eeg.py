"""DistilCLIP-EEG on a corpus, with the ablation rows of the paper.

    python -m experiments.distilclip_eeg --preset small --data.corpus bonn
    python -m experiments.distilclip_eeg --preset small --data.corpus eegmat
    python -m experiments.distilclip_eeg --preset quickstart --table families

Options are those of `eegkd distill distilclip_eeg`; `--table` chooses the variants that
are trained beside the system, each with a teacher of its own:

    prompts   text_hp (hand-written context) and base_wp (no prompts), against the
              system itself, which is the paper's Base-LP
    language  random_class_vectors (distinct random vectors in place of text)
    families  a family of losses more each (`experiments/families.py`), for a student of
              a quarter of the teacher's tokens; alpha_0 is without the soft targets
    none      no variant
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eegkd.commands.options import (
    open_data,
    parse_run,
    take_option,
)
from eegkd.errors import InputError, Interrupted
from eegkd.pipeline.host import tune_process
from eegkd.pipeline.run import run_distillation
from eegkd.systems import System
from eegkd.systems.distilclip_eeg import make_system
from experiments.families import FAMILIES


def _with(group: str, changes: Mapping[str, Any], config: Any) -> System:
    part = dataclasses.replace(getattr(config, group), **changes)
    return make_system(dataclasses.replace(config, **{group: part}))


VARIANTS: Mapping[str, Callable[[Any], System]] = FAMILIES | {
    "text_hp": functools.partial(_with, "prompt", {"mode": "handcrafted"}),
    "base_wp": functools.partial(_with, "prompt", {"mode": "none"}),
    "random_class_vectors": functools.partial(
        _with, "text", {"source": "random_class_vectors"}
    ),
}
TABLES: Mapping[str, tuple[str, ...]] = {
    "prompts": ("text_hp", "base_wp"),
    "language": ("random_class_vectors",),
    "families": tuple(FAMILIES),
    "none": (),
}
# What keeps a run under 45 minutes on two cores; your own options come after.
TABLE_OPTIONS: Mapping[str, str] = {
    "families": "--student.stem_strides 8 4 --student.init random "
    "--rows alpha_0 no_teacher",
}
OPTIONS: Mapping[str, str] = {
    "bonn": "--num_seeds 2 --train.epochs 10 "
    "--rows alpha_0 no_teacher shuffled_teacher small_net linear",
    # Half the preset's epochs: of 540 training windows; validation peaks before that.
    "eegmat": "--num_seeds 5 --train.epochs 10",
}
DEFAULT_TABLE: Mapping[str, str] = {"bonn": "prompts", "eegmat": "language"}

NOTES: Mapping[str, str] = {
    "bonn": "Bonn has no subject ids: a person's segments are in training and test.",
    "eegmat": "Rest always comes first in EEGMAT: time in the session is confounded "
    "with the class.",
}
TABLE_NOTES: Mapping[str, str] = {
    "families": "Rows named after a family of losses are the student with that family "
    "added: where the verdict, the student against the row, is worse, it has helped.",
}


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns the exit code."""
    try:
        table, rest = take_option(argv, "table")
        corpus, _ = take_option(rest, "data.corpus")
        given = OPTIONS.get(corpus or "", ""), TABLE_OPTIONS.get(table or "", "")
        rest = [*" ".join(given).split(), *rest]
        _, config = parse_run("distilclip_eeg", rest, "distill distilclip_eeg")
        corpus = config.data.corpus
        table = table or DEFAULT_TABLE.get(corpus, "none")
        if table not in TABLES:
            raise InputError(f"--table {table!r}: choose {', '.join(TABLES)}.")
        tune_process(quick_compile=config.train.quick_compile)
        store, folds = open_data(config)
        variants = [(name, VARIANTS[name]) for name in TABLES[table]]
        asked = (NOTES, corpus), (TABLE_NOTES, table)
        notes = [notes[name] for notes, name in asked if name in notes]
        run_distillation(
            make_system, store, folds, config, variants=variants, notes=notes
        )
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
