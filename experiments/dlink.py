"""DLink on a corpus, with the rows of its ablation.

    python -m experiments.dlink --preset small --table routing
    python -m experiments.dlink --preset small --table routing --data.world layered_null
    python -m experiments.dlink --preset paper --data.corpus eegmat

Without a corpus it is the synthetic world `layered`, whose classes show in a teacher's
layers from different depths on (`eegkd/data/synthetic/layered.py`), or its twin
`layered_null`, in which the teacher knows no more than the student.

Options are those of `eegkd distill dlink`; `--table` chooses the variants whose
students are trained beside the system's own, from the same teacher:

    ablation  logit_kd alone, and the student's own losses with one change: in place of
              the router last (the teacher's last layer), mean (of all layers) or
              static_softmax (one learned mixture); no_spectral (the router alone,
              without the spectral loss). Labels alone are the row no_teacher, which
              starts from the same numbers
    routing   the same for a student without the spectral loss, and a row spectral that
              has it
    spectral  magnitude or phase alone; the axis of the transform; its site
    design    no_probe (the router learns from nothing but its start), compress_only
              (a student that never reaches the teacher's tokens), no_spectrum (one that
              embeds patches without their spectrum)
    none      no variant
"""

import functools
import sys
from typing import Any

from eegkd.systems.dlink import make_system
from experiments.tables import Experiment, run_table, vary

_NO_FEATURES = {"loss.lambda_feat": 0.0, "loss.lambda_spec": 0.0}

_CHANGES: dict[str, dict[str, Any]] = {
    "ce": _NO_FEATURES,
    "logit_kd": {**_NO_FEATURES, "kd.alpha": 0.5},
    "last": {"router.mode": "last"},
    "mean": {"router.mode": "mean"},
    "static_softmax": {"router.mode": "static_softmax"},
    "no_spectral": {"loss.lambda_spec": 0.0},
    "spectral": {"loss.lambda_spec": 0.5},
    "magnitude": {"spec.beta": 0.0},
    "phase": {"spec.magnitude": False},
    "patch": {"spec.axis": "patch"},
    "channel_series": {"spec.axis": "channel_series"},
    "feature": {"spec.axis": "feature"},
    "project": {"spec.site": "project"},
    "compress": {"spec.site": "compress"},
    "both": {"spec.site": "both"},
    "no_probe": {"router.aux_probe": False},
    "compress_only": {"student.order": "compress_only"},
    "no_spectrum": {"student.spectrum": False},
}
VARIANTS = {
    name: functools.partial(vary, make_system, changes)
    for name, changes in _CHANGES.items()
}
_OF_STUDENTS = ("ablation", "routing", "spectral", "design")
EXPERIMENT = Experiment(
    about=__doc__,
    system="dlink",
    variants=VARIANTS,
    tables={
        "ablation": ("logit_kd", "last", "mean", "static_softmax", "no_spectral"),
        "routing": ("logit_kd", "last", "mean", "static_softmax", "spectral"),
        "spectral": (
            *("magnitude", "phase", "patch", "channel_series", "feature"),
            *("project", "compress", "both"),
        ),
        "design": ("no_probe", "compress_only", "no_spectrum"),
        "none": (),
    },
    options={
        # A head over all tokens would do what is asked of the layers, and by heart.
        # By validation kappa: at 1e-3, DLink's own rate, so few updates leave every
        # student half way; at 3e-2 those without tokens to mimic collapse.
        "synthetic": "--data.world layered --split fixed --num_seeds 5 "
        "--teacher.head average --train.epochs 16 --train.teacher_epochs 20 "
        "--optim.learning_rate 1e-2 --optim.teacher_learning_rate 1e-3 "
        "--spec.site both --loss.lambda_spec 0.5 "
        "--rows no_teacher shuffled_teacher small_net linear",
        # The suite's windows; validation peaks early with 500 of them to train on.
        "eegmat": "--data.window_s 5 --train.teacher_epochs 15 --train.epochs 20 "
        "--rows no_teacher shuffled_teacher small_net linear",
    },
    table_options={"routing": "--loss.lambda_spec 0"},
    default_table={"eegmat": "ablation"},
    notes={
        "eegmat": "Rest always comes first in EEGMAT: time in the session is "
        "confounded with the class.",
    },
    table_notes={
        name: "Rows named after a variant are its students: where the verdict, the "
        "student against the row, is better, it is better without the row's change."
        for name in _OF_STUDENTS
    },
    same_teacher=_OF_STUDENTS,
)


if __name__ == "__main__":
    sys.exit(run_table(EXPERIMENT, sys.argv[1:]))
