"""The smallest DistilCLIP-EEG that tests train or give random weights."""

from eegkd.config import TrainConfig, run_config
from eegkd.models import ConformerConfig
from eegkd.systems.distilclip_eeg.config import (
    DistilClipConfig,
    ProjConfig,
    StudentConfig,
    TextConfig,
)

TINY = run_config(DistilClipConfig)(
    eeg=ConformerConfig(
        dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
    ),
    text=TextConfig(dim=16, depth=1, num_heads=2, num_prompts=2),
    proj=ProjConfig(dim=8),
    student=StudentConfig(depth=1),
    num_seeds=1,
    rows=("linear",),
    num_folds=3,
    train=TrainConfig(epochs=1, batch_size=8),
)
