"""DistilCLIP-EEG: windows aligned with class texts, distilled into a small tower."""

from eegkd.systems.distilclip_eeg.config import DistilClipConfig
from eegkd.systems.distilclip_eeg.system import deployed, make_system
from eegkd.systems.distilclip_eeg.text import text_notes
from eegkd.systems.entry import Entry, Variant

__all__ = ["ENTRY", "make_system"]

_SMALL = {
    "eeg.dim": 64,
    "eeg.depth": 4,
    "eeg.ffn_mult": 2,
    "eeg.num_heads": 4,
    "eeg.stem_kernels": (15, 5),
    "text.dim": 128,
    "text.depth": 2,
    "text.num_heads": 4,
    "proj.dim": 128,
    "student.depth": 2,
    "train.batch_size": 64,
    "optim.learning_rate": 1e-3,
}

ENTRY = Entry(
    DistilClipConfig,
    make_system,
    {
        "paper": {},
        "tpu": {"eeg.dim": 512, "eeg.ffn_mult": 1, "eeg.dtype": "bfloat16"},
        "small": {
            **_SMALL,
            # Half the tokens of 200 Hz: minutes instead of hours on a CPU.
            "data.rate": 100.0,
            "data.band": (0.5, 40.0),
            "train.epochs": 20,
        },
        "quickstart": {
            **_SMALL,
            "text.dim": 64,
            "text.num_prompts": 4,
            "proj.dim": 64,
            "split": "fixed",
            "num_seeds": 2,
            # A random start, so that alpha_0 differs by the soft targets alone.
            "student.init": "random",
            "kd.temperature": 1.0,
            "kd.alpha": 0.5,
            "rows": (
                "alpha_0",
                "no_teacher",
                "a_a",
                "skip",
                "shuffled_teacher",
                "small_net",
                "linear",
            ),
            "data.corpus": "synthetic",
            # Soft targets are learned slowly: after 5 epochs the student has one class
            # less than labels alone teach it, after 8 no less (validation people).
            "train.epochs": 8,
            "train.teacher_epochs": 8,
            # Of 64 windows 2 would have labels: no student can learn from those, with
            # a teacher or without.
            "train.labelled_share": 0.25,
            "train.quick_compile": True,
        },
    },
    deployed=deployed,
    notes=text_notes,
    variants={
        "skip": Variant(
            {"student.init": "skip"},
            "the student that starts from every second block of its teacher. Its "
            "difference from the student is what that start is worth.",
            same_teacher=True,
        ),
    },
)
