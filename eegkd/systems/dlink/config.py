"""Options of DLink and its presets."""

import dataclasses
from typing import ClassVar, Literal

from eegkd.models.cbramod import CBraModConfig
from eegkd.models.dlink_student import DlinkStudentConfig
from eegkd.models.labram import LabramConfig
from eegkd.models.lora import LoraConfig
from eegkd.systems import SystemConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The foundation model, and how it is brought to the task.

    Attributes:
        name: Which.
        weights: Its folder or file, of the sizes below; empty: from scratch.
        head: On CBraMod: all tokens through three layers, two or one, or their mean
            through one. LaBraM has its own, on the mean.
        train: All of it; the head alone on a backbone that stays as it is; or, on such
            a backbone, low-rank adapters beside its linear layers, and the head.
        label_smoothing: Of the teacher's cross-entropy; None: 0.1 for three classes or
            more, else none.
        cbramod: Sizes; channels, patches and scale are the data's.
        labram: The same.
        lora: Sizes of the adapters, and the paths of the layers that have them.
    """

    name: Literal["cbramod", "labram"] = "cbramod"
    weights: str = ""
    head: Literal["all_patch", "two_layer", "one_layer", "average"] = "all_patch"
    train: Literal["full", "frozen", "lora"] = "full"
    label_smoothing: float | None = None
    cbramod: CBraModConfig = CBraModConfig()
    labram: LabramConfig = LabramConfig()
    lora: LoraConfig = LoraConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """The mixture of the teacher's layers that the student mimics; training only.

    Attributes:
        mode: Weights from the input, one learned set, all equal, or the last layer.
        layers: Names of those offered, as embed or block_3; empty: all.
        hidden: Width of the MLP that scores a layer.
        temperature: Of the softmax over layers.
        normalise: Whether layers are standardised before they are mixed.
        stop_gradient: Whether the student's losses leave the router alone. Without, it
            settles on the layer that is easiest to mimic.
        aux_probe: Train it by a linear probe for the labels on the mixture.
        aux_weight: Of the probe's cross-entropy.
        entropy_bonus: Weight of the entropy of the weights, in the first updates.
        entropy_steps: How many those are.
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
        """Whether the weights are trained."""
        return self.mode in ("input", "static_softmax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of what the student learns beside the labels.

    Attributes:
        lambda_feat: Of the distance to the mixture of layers; 0 leaves it out.
        lambda_spec: Of the spectral loss; 0 leaves it out.
        feat: Mean square of standardised tokens, or one minus their cosine.
        label_smoothing: Of the student's cross-entropy; None is as for the teacher's.
    """

    lambda_feat: float = 1.0
    lambda_spec: float = 0.1
    feat: Literal["mse", "cosine"] = "mse"
    label_smoothing: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecConfig:
    """The spectral loss: `lambda_spec (magnitude + beta phase)`.

    Attributes:
        axis: Of the transform: a channel's patches, its patches and features end to
            end, or a token's features. auto is patch from 8 patches on, else
            channel_series.
        site: At the teacher's width, after compression (through a linear decoder that
            training alone has), or both. Before it, the feature loss asks for nearly
            the same; after it, nothing else of the teacher is asked for.
        magnitude: Whether there is the magnitude part.
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
        temperature: Of the soft targets.
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

    student_options: ClassVar = ("student", "router", "loss", "spec", "kd")

    teacher: TeacherConfig = TeacherConfig()
    student: DlinkStudentConfig = DlinkStudentConfig()
    router: RouterConfig = RouterConfig()
    loss: LossConfig = LossConfig()
    spec: SpecConfig = SpecConfig()
    kd: KdConfig = KdConfig()


PRESETS = {
    "paper": DlinkConfig(),
    "labram": DlinkConfig(teacher=TeacherConfig(name="labram")),
    "small": DlinkConfig(
        teacher=TeacherConfig(
            head="two_layer",
            cbramod=CBraModConfig(filters=10, depth=4, num_heads=4, ffn_dim=160),
        ),
    ),
}
