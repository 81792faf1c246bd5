"""Options of DistilCLIP-EEG."""

import dataclasses
from typing import ClassVar, Literal

from eegkd.host.paths import PathText
from eegkd.models.conformer import ConformerConfig
from eegkd.systems import SystemConfig
from eegkd.systems.channels import student_signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower.

    Attributes:
        source: Class templates; a file of free texts, several per class; both of
            them; distinct random vectors in place of language; no text at all, a
            linear head.
        file: CSV of free texts, columns label,text.
        bert: Folder of BERT weights (config.json, model.safetensors, and vocab.txt or
            tokenizer.json), or one that holds such a folder, as of an installed
            package; empty: random weights and a vocabulary made from the texts.
        pooling: Vector of a text: that of its [CLS] token, or the mean of its tokens,
            as sentence-transformers take it.
        dim: Width, where weights are random.
        depth: Layers, where weights are random.
        num_heads: Attention heads, where weights are random.
        num_prompts: Learnable tokens in every layer, after [CLS].
        draw: Texts of a class in a step: the mean of all, or one at random. With one,
            random weights learn the text's number rather than its class.
        centre: Subtract the mean over texts from their vectors. Ours, not the paper's:
            without it a random BERT's class vectors stay equal and nothing is learned.
        dropout: Rate inside BERT, where its weights are trained. Class texts are few
            and fixed, and at 0.1 the noise exceeds what tells random weights' apart.
        train: Train BERT's own weights, at a tenth of the rate. "auto" keeps loaded
            weights frozen and trains random ones.
    """

    source: Literal["templates", "file", "both", "random_class_vectors", "none"] = (
        "templates"
    )
    file: PathText = ""
    bert: PathText = ""
    pooling: Literal["cls", "mean"] = "cls"
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    num_prompts: int = 8
    draw: Literal["all", "one"] = "all"
    centre: bool = True
    dropout: float = 0.0
    train: Literal["auto", "frozen", "finetune"] = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Prompts of both towers.

    Attributes:
        mode: Learnable (the paper's Base-LP), handcrafted context and no learnable
            token (Text-HP), or none (Base-WP).
        init_std: Spread of the initial prompts.
    """

    mode: Literal["learnable", "handcrafted", "none"] = "learnable"
    init_std: float = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjConfig:
    """The shared space.

    Attributes:
        dim: Width.
    """

    dim: int = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The contrastive loss.

    Attributes:
        positives: Every pair of one class, or the diagonal alone.
        global_batch: Contrast over the batches of all devices.
    """

    positives: Literal["multi", "identity"] = "multi"
    global_batch: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class KdConfig:
    """Distillation.

    Attributes:
        temperature: t of the soft targets.
        alpha: Weight of the soft targets; 1 - alpha is that of L1. Each is a mean over
            the windows it has, L1 over those with labels: where 4 people in 40 have
            labels, a window of theirs weighs 10 times a window of soft targets at 0.5.
        logit_scale: Factor on cosines in the soft targets; the learned one saturates.
        lambda_cos: Weight of 1 - cos(teacher, student) of the projections.
    """

    temperature: float = 4.0
    alpha: float = 0.5
    logit_scale: float = 10.0
    lambda_cos: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """How the student differs from the teacher.

    Attributes:
        depth: Blocks.
        dim: Width; 0 is the teacher's.
        stem_strides: Strides of the stem; a token covers their product in samples, so
            that twice the teacher's makes half its tokens. None is the teacher's.
        init: Every second block of the teacher, or random.
        hard: Loss on labels: L1, or cross-entropy on class logits.
    """

    depth: int = 4
    dim: int = 0
    stem_strides: tuple[int, int] | None = None
    init: Literal["skip", "random"] = "skip"
    hard: Literal["l1", "ce"] = "l1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilClipConfig(SystemConfig):
    """All options of the system; the defaults are the preset `paper`.

    Attributes:
        eeg: The teacher's Conformer.
        text: The text tower.
        prompt: Prompts of both towers.
        proj: The shared space.
        loss: The contrastive loss.
        kd: Distillation.
        student: How the student differs.
    """

    student_options: ClassVar[tuple[str, ...]] = ("kd", "student")

    eeg: ConformerConfig = ConformerConfig()
    text: TextConfig = TextConfig()
    prompt: PromptConfig = PromptConfig()
    proj: ProjConfig = ProjConfig()
    loss: LossConfig = LossConfig()
    kd: KdConfig = KdConfig()
    student: StudentConfig = StudentConfig()

    def encoder(self, stage: str) -> ConformerConfig:
        """Returns the Conformer of the teacher or the student."""
        learnable = self.prompt.mode == "learnable"
        config = dataclasses.replace(
            self.eeg,
            n_chans=self.signal.n_chans,
            num_prompts=self.eeg.num_prompts if learnable else 0,
            prompt_init_std=self.prompt.init_std,
        )
        if stage == "teacher":
            return config
        dim = self.student.dim or config.dim
        strides = self.student.stem_strides or config.stem_strides
        return dataclasses.replace(
            config,
            n_chans=student_signal(self).n_chans,
            depth=self.student.depth,
            dim=dim,
            stem_strides=strides,
        )
