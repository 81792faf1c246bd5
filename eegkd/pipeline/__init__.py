"""Whole runs: data in, verdict out."""

from eegkd.config import RunConfig, TrainConfig
from eegkd.pipeline.run import run_distillation

__all__ = ["RunConfig", "TrainConfig", "run_distillation"]
