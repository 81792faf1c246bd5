"""DistilCLIP-EEG on a corpus, with the ablation rows of the paper.

    python -m experiments.distilclip_eeg --preset small --data.corpus bonn
    python -m experiments.distilclip_eeg --preset small --data.corpus eegmat
    python -m experiments.distilclip_eeg --preset quickstart --table families
    python -m experiments.distilclip_eeg --preset quickstart --table budget

Options are those of `eegkd distill distilclip_eeg`; `--table` chooses the variants that
are trained beside the system:

    prompts   text_hp (hand-written context) and base_wp (no prompts), against the
              system itself, which is the paper's Base-LP
    language  random_class_vectors (distinct random vectors in place of text)
    tower     with `--text.bert DIR`, a tower that knows the language: random_tower
              (random weights and no words but these), cls (the other way to pool) and
              random_class_vectors; the system itself pools by the mean
    families  a family of losses more each (`experiments/families.py`), for a student of
              a quarter of the teacher's tokens; alpha_0 is without the soft targets
    budget    score by the number of people whose labels the student may use, with and
              without soft targets: several runs, a picture (`experiments/budget.py`)
    evl_ecg   of these, the three of EVL-ECG's objective: attention, relation, transport
    none      no variant

The variants of `prompts`, `language` and `tower` have teachers of their own, the others
the system's.
"""

import functools
import sys
from typing import Any

from eegkd.errors import InputError
from eegkd.systems import System
from eegkd.systems.distilclip_eeg import make_system
from experiments.budget import run_budget
from experiments.families import FAMILIES
from experiments.tables import Experiment, run_table, vary

_CHANGES = {
    "text_hp": {"prompt.mode": "handcrafted"},
    "base_wp": {"prompt.mode": "none"},
    "random_class_vectors": {"text.source": "random_class_vectors"},
    "cls": {"text.pooling": "cls"},
}
# What keeps a run under 45 minutes on two cores.
_FEWER_TOKENS = (
    "--student.stem_strides 8 4 --student.init random --rows alpha_0 no_teacher"
)
_FAMILIES_NOTE = (
    "Rows named after a family of losses are the student with that family added: where "
    "the verdict, the student against the row, is worse, it has helped."
)


def _random_tower(config: Any) -> System:
    """Makes the system whose text tower has random weights."""
    if not config.text.bert:
        raise InputError(
            "--table tower compares a published text tower with others: name its "
            "folder by --text.bert DIR."
        )
    return vary(make_system, {"text.bert": "", "text.pooling": "cls"}, config)


VARIANTS = FAMILIES | {"random_tower": _random_tower}
VARIANTS |= {
    name: functools.partial(vary, make_system, changes)
    for name, changes in _CHANGES.items()
}
EXPERIMENT = Experiment(
    about=__doc__,
    system="distilclip_eeg",
    variants=VARIANTS,
    tables={
        "prompts": ("text_hp", "base_wp"),
        "language": ("random_class_vectors",),
        "tower": ("random_tower", "cls", "random_class_vectors"),
        "families": tuple(FAMILIES),
        "evl_ecg": ("attention", "relation", "transport"),
        "none": (),
    },
    options={
        "bonn": "--num_seeds 2 --train.epochs 10 "
        "--rows alpha_0 no_teacher shuffled_teacher small_net linear",
        # Half the preset's epochs: of 540 training windows; validation peaks before.
        "eegmat": "--num_seeds 5 --train.epochs 10",
    },
    table_options={
        "families": _FEWER_TOKENS,
        "evl_ecg": _FEWER_TOKENS,
        "tower": "--text.pooling mean --rows alpha_0 no_teacher",
    },
    programs={"budget": functools.partial(run_budget, make_system)},
    same_teacher=("families", "evl_ecg"),
    default_table={"bonn": "prompts", "eegmat": "language"},
    notes={
        "bonn": "Bonn has no subject ids: a person's segments are in training and "
        "test.",
        "eegmat": "Rest always comes first in EEGMAT: time in the session is "
        "confounded with the class.",
    },
    table_notes={"families": _FAMILIES_NOTE, "evl_ecg": _FAMILIES_NOTE},
)


if __name__ == "__main__":
    sys.exit(run_table(EXPERIMENT, sys.argv[1:]))
