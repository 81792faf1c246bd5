"""EEGNet trained on labels alone: is distillation needed at all?"""

from eegkd.losses import Term, cross_entropy
from eegkd.models import EEGNet, EEGNetConfig
from eegkd.systems import System, keep_all
from eegkd.systems.stages import module_stage


def make_system(config: EEGNetConfig) -> System:
    """Builds a system of one stage, `student`, with cross-entropy on labels."""
    inputs = ("student.logits", "batch.label")
    term = Term("ce", cross_entropy, inputs, 1.0, "batch.labelled")
    stage = module_stage("student", EEGNet(config), (term,))
    return System("small_net", ("signal",), keep_all, (stage,))
