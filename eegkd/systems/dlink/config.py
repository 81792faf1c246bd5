"""Options of DLink."""

import dataclasses
from typing import ClassVar, Literal

from eegkd.models.dlink_student import DlinkStudentConfig
from eegkd.systems import SystemConfig
from eegkd.systems.foundation import TeacherConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """The mixture of the teacher's layers that the student mimics; training only.

    Attributes:
        mode: Weights from the input, one learned set, all equal, or the last layer.
        layers: Names of the mixed layers, as embed or block_3; empty: all.
        hidden: Width of the MLP that scores a layer.
        temperature: Temperature of the softmax over layers.
        normalise: Standardise layers before they are mixed.
        stop_gradient: Train the router by none of the student's losses. Otherwise it
            settles on the layer that is easiest to mimic.
        aux_probe: Train it by a linear probe for the labels on the mixture.
        aux_weight: Weight of the probe's cross-entropy.
        entropy_bonus: Weight of the entropy of the weights, in the first updates.
        entropy_steps: Number of those updates.
        log_weights: Log the mean weight of every layer at each evaluation, over some
            training and validation windows, as `train/alpha_<layer>`, `val/...`.
    """

    mode: Literal["input", "static_softmax", "mean", "last"] = "input"
    layers: tuple[str, ...] = ()
    hidden: int = 64
    temperature: float = 1.0
    normalise: bool = True
    stop_gradient: bool = True
    aux_probe: bool = True
    aux_weight: float = 1.0
    entropy_bonus: float = 0.01
    entropy_steps: int = 200
    log_weights: bool = True

    @property
    def learns(self) -> bool:
        """True if the weights are trained."""
        return self.mode in ("input", "static_softmax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the student's losses other than that on the labels.

    Attributes:
        lambda_feat: Weight of the distance to the mixture of layers; 0 leaves it out.
        lambda_spec: Weight of the spectral loss; 0 leaves it out.
        feat: Mean square of standardised tokens, or one minus their cosine.
        label_smoothing: Smoothing of the student's labels; None is as for the teacher.
    """

    lambda_feat: float = 1.0
    lambda_spec: float = 0.1
    feat: Literal["mse", "cosine"] = "mse"
    label_smoothing: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecConfig:
    """The spectral loss: `lambda_spec (magnitude + beta phase)`.

    Attributes:
        axis: Axis of the transform: a channel's patches, its patches and features end
            to end, or a token's features. auto is patch from 8 patches on, else
            channel_series.
        site: Place: at the teacher's width, after compression (through a linear decoder
            that training alone has), or both. Before it, the feature loss asks for
            nearly the same; after it, no other loss reads the teacher's layers.
        magnitude: Include the magnitude part.
        beta: Weight of the phase part; 0 leaves it out.
    """

    axis: Literal["auto", "patch", "channel_series", "feature"] = "auto"
    site: Literal["project", "compress", "both"] = "project"
    magnitude: bool = True
    beta: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class KdConfig:
    """Distillation of class probabilities.

    Attributes:
        alpha: Weight of the soft targets; 1 - alpha is that of the labels.
        temperature: Temperature of the soft targets.
    """

    alpha: float = 0.0
    temperature: float = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DlinkConfig(SystemConfig):
    """All options of the system; the defaults are the preset `paper`.

    Attributes:
        teacher: The foundation model.
        student: Sizes; channels, patches, scale, width and classes are the teacher's
            and the data's.
        router: The mixture of the teacher's layers.
        loss: Weights of the student's losses.
        spec: The spectral loss.
        kd: Distillation of class probabilities.
    """

    student_options: ClassVar[tuple[str, ...]] = (
        "student",
        "router",
        "loss",
        "spec",
        "kd",
    )

    teacher: TeacherConfig = TeacherConfig()
    student: DlinkStudentConfig = DlinkStudentConfig()
    router: RouterConfig = RouterConfig()
    loss: LossConfig = LossConfig()
    spec: SpecConfig = SpecConfig()
    kd: KdConfig = KdConfig()
