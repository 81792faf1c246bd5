"""EEGNet trained on labels alone: is distillation needed at all?"""

from eegkd.losses import Term, binary_cross_entropy, cross_entropy
from eegkd.models import EEGNet, EEGNetConfig
from eegkd.systems import System, keep_all
from eegkd.systems.stages import module_stage


def make_system(config: EEGNetConfig, *, multilabel: bool = False) -> System:
    """Builds a system of one stage, `student`, with cross-entropy on labels.

    With `multilabel` it is the binary one, class by class.
    """
    inputs = ("student.logits", "batch.label")
    loss = binary_cross_entropy if multilabel else cross_entropy
    term = Term("ce", loss, inputs, 1.0, "batch.labelled")
    stage = module_stage("student", EEGNet(config), (term,), multilabel=multilabel)
    return System("small_net", ("signal",), keep_all, (stage,))
