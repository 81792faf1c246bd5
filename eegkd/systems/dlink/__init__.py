"""DLink: a foundation model distilled into a student for small devices."""

from eegkd.systems.dlink.config import DlinkConfig
from eegkd.systems.dlink.system import deployed, make_system
from eegkd.systems.entry import Entry

__all__ = ["ENTRY", "make_system"]

_DATA = {"data.rate": 200.0, "data.zscore": "none"}
_LONG = {"train.epochs": 100, "train.teacher_epochs": 50, "train.batch_size": 64}

ENTRY = Entry(
    DlinkConfig,
    make_system,
    {
        "paper": {
            **_DATA,
            **_LONG,
            "optim.learning_rate": 1e-3,
            "optim.teacher_learning_rate": 1e-4,
            "optim.head_scale": 5.0,
            "optim.final_rate": 1e-6,
            "optim.warmup_fraction": 0.0,
        },
        # Its published fine-tuning is for batches of 512.
        "labram": {
            **_DATA,
            **_LONG,
            "teacher.name": "labram",
            "optim.learning_rate": 1e-3,
            "optim.teacher_learning_rate": 5e-4,
            "optim.layer_decay": 0.65,
            "optim.final_rate": 1e-6,
            "optim.warmup_fraction": 0.1,
        },
        "small": {
            **_DATA,
            "teacher.head": "two_layer",
            "teacher.cbramod.filters": 10,
            "teacher.cbramod.depth": 4,
            "teacher.cbramod.num_heads": 4,
            "teacher.cbramod.ffn_dim": 160,
            "train.epochs": 20,
            "train.batch_size": 64,
            "optim.learning_rate": 1e-3,
        },
    },
    deployed=deployed,
)
