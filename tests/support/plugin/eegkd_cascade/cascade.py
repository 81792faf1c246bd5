"""A system that uses every freedom a stage has.

`lens` is given, its weights come from a file; `tower` learns to see what the lens sees,
and is no classifier; `night` looks at whole recordings, through what the tower says of
their windows; `rater` is cross-fitted; the student draws its window as an image, and
learns from all of them, and from words that nobody else is given.
"""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from eegkd.losses import Term, cross_entropy, kd_kl
from eegkd.systems import Stage, StageOptions, System, SystemConfig, Weights
from eegkd.systems.entry import Entry
from eegkd.systems.stages import class_probabilities
from eegkd.typing import Variables

VOCABULARY, WORDS, HEIGHT = 7, 3, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """How a stage is trained.

    Attributes:
        epochs: Passes over the training windows.
        batch_size: Windows, or recordings, per batch.
        rate: Peak of the learning rate.
        eval_batch: Windows, or recordings, per batch of an evaluation.
        eval_every: Updates between evaluations.
    """

    epochs: int = 2
    batch_size: int = 8
    rate: float = 1e-2
    eval_batch: int = 16
    eval_every: int = 5

    def options(self, crossfit=0):
        """Returns it as a stage has it."""
        return StageOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.rate,
            eval_batch=self.eval_batch,
            eval_every=self.eval_every,
            crossfit=crossfit,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CascadeConfig(SystemConfig):
    """A given lens, a tower, a night, a rater in parts, and a student.

    Attributes:
        weights: A safetensors file of the lens; empty draws them.
        width: Width of the lens: as in its file.
        broken: Let `prepare` lose the last example of a batch of several.
        tower: How it is trained.
        night: How it is trained, in recordings.
        rater: How it is trained.
        student: How it is trained.
    """

    student_options: ClassVar[tuple[str, ...]] = ("student",)

    weights: str = ""
    width: int = 6
    broken: bool = False
    tower: TrainedConfig = TrainedConfig()
    night: TrainedConfig = TrainedConfig(
        epochs=3, batch_size=2, eval_batch=2, eval_every=2
    )
    rater: TrainedConfig = TrainedConfig(epochs=1, batch_size=4, eval_every=4)
    student: TrainedConfig = TrainedConfig(
        epochs=3, batch_size=12, rate=3e-2, eval_batch=7, eval_every=3
    )


def dense(key, fan_in, fan_out):
    """Draws one matrix."""
    return jax.random.normal(key, (fan_in, fan_out)) / fan_in**0.5


def powers(batch):
    """Returns the logarithm of the power of each channel, over the last axis."""
    return jnp.log(jnp.mean(batch["signal"] ** 2, axis=-1) + 1e-3)


# The lens: given.


def lens_shapes(channels, classes, width):
    """Returns the shapes of its weights; nothing is allocated."""
    sizes = {
        "in": (channels, width),
        "middle": (width, width),
        "out": (width, classes),
    }
    return {name: jax.ShapeDtypeStruct(x, jnp.float32) for name, x in sizes.items()}


def lens_init(shapes, key, batch, earlier, loaded=None):
    """Takes the weights of the file, or draws some."""
    if loaded is None:
        keys = jax.random.split(key, len(shapes))
        pairs = zip(keys, shapes.items(), strict=True)
        loaded = {name: jax.random.normal(k, x.shape) for k, (name, x) in pairs}
    return Variables({}, {"loaded": loaded}, {})


def lens_forward(variables, batch, upstream, *, train, key):
    """Sees powers."""
    w = variables.frozen["loaded"]
    features = jnp.tanh(powers(batch) @ w["in"])
    features = jnp.tanh(features @ w["middle"])
    return {"features": features, "logits": features @ w["out"]}, {}


def make_lens(config):
    """Makes the stage; the file is not opened."""
    signal, load = config.signal, None
    shapes = lens_shapes(signal.n_chans, len(signal.classes), config.width)
    if config.weights:
        file = Path(config.weights).absolute()
        read = functools.partial(load_file, file)
        load = Weights("lens", (file,), lambda: shapes, read)
    return Stage(
        "lens",
        functools.partial(lens_init, shapes),
        lens_forward,
        predict=class_probabilities(lens_forward),
        load=load,
    )


# The tower: trained, and no classifier.


def tower_init(width, key, batch, earlier):
    """Draws its matrix."""
    return Variables({"w": dense(key, batch["signal"].shape[1], width)}, {}, {})


def tower_forward(variables, batch, upstream, *, train, key):
    """Sees powers, too."""
    return {"embed": powers(batch) @ variables.params["w"]}, {}


def distance(own, other):
    """Returns the mean square difference, one number per window."""
    return jnp.mean((own - other) ** 2, axis=-1)


# The night: whole recordings, `[r, n, ...]`.


def night_init(classes, key, batch, earlier):
    """Draws its head; the tower's width is the length of its input."""
    width = earlier["tower"].params["w"].shape[1]
    return Variables({"w": dense(key, 2 * width, classes)}, {}, {})


def night_forward(variables, batch, upstream, *, train, key):
    """Compares each window with the mean of its recording."""
    embed, mask = upstream["tower"]["embed"], batch["mask"][..., None]
    mean = jnp.sum(embed * mask, 1, keepdims=True) / jnp.sum(mask, 1, keepdims=True)
    both = jnp.concatenate([embed, embed - mean], axis=-1)
    return {"logits": both @ variables.params["w"]}, {}


def night_predict(variables, batch):
    """Returns probabilities `[r, n, k]`."""
    read = batch["cache"]
    tensors, _ = night_forward(variables, batch, read, train=False, key=None)
    return jax.nn.softmax(tensors["logits"])


def night_loss(logits, label):
    """Returns the mean over the labelled windows of each recording."""
    known = label >= 0
    each = cross_entropy(
        logits.reshape(-1, logits.shape[-1]), jnp.maximum(label, 0).reshape(-1)
    ).reshape(label.shape)
    return jnp.sum(each * known, 1) / jnp.maximum(jnp.sum(known, 1), 1)


# The rater: cross-fitted.


def rater_init(classes, key, batch, earlier):
    """Draws its head."""
    return Variables({"w": dense(key, batch["signal"].shape[1], classes)}, {}, {})


def rater_forward(variables, batch, upstream, *, train, key):
    """Rates powers."""
    return {"logits": powers(batch) @ variables.params["w"]}, {}


# The student.


def draw(signal):
    """Draws each channel's curve into `[b, c, HEIGHT, t]`, in [0, 1]."""
    rows = jnp.linspace(-2.0, 2.0, HEIGHT)[:, None]
    return jnp.exp(-((signal[:, :, None, :] - rows) ** 2) / 0.1)


def student_init(classes, key, batch, earlier):
    """Draws its head, and the words it learns from."""
    first, second = jax.random.split(key)
    size = batch["signal"].shape[1] * HEIGHT
    words = 0.1 * jax.random.normal(second, (VOCABULARY, size))
    return Variables({"w": dense(first, size, classes), "words": words}, {}, {})


def student_forward(variables, batch, upstream, *, train, key):
    """Looks at an image of the window; words are read where there are any."""
    image = draw(batch["signal"])
    pooled = jnp.concatenate([*jnp.moveaxis(jnp.mean(image, axis=-1), 1, 0)], axis=-1)
    tensors = {"pooled": pooled, "logits": pooled @ variables.params["w"]}
    if "student" in batch:
        words = variables.params["words"][batch["student"]["ids"]]
        tensors["words"] = jnp.mean(words, axis=1)
    return tensors, {}


def prepare(broken, batch, stages):
    """Adds the words of each window, which the student alone reads."""
    if broken and len(batch["signal"]) > 1:
        batch = {name: value[:-1] for name, value in batch.items()}
    if "student" not in stages:
        return batch
    label = np.maximum(batch["label"], 0)
    ids = (label[:, None] * WORDS + np.arange(WORDS)).astype(np.int32)
    return {**batch, "student": {"ids": ids}}


def make_system(config):
    """Builds the five stages."""
    classes, labelled = len(config.signal.classes), "batch.labelled"
    answers = lambda name: Term(
        "ce", cross_entropy, (f"{name}.logits", "batch.label"), 1.0, labelled
    )
    judge = class_probabilities
    stages = (
        make_lens(config),
        Stage(
            "tower",
            functools.partial(tower_init, config.width),
            tower_forward,
            (Term("match", distance, ("tower.embed", "lens.features")),),
            options=config.tower.options(),
        ),
        Stage(
            "night",
            functools.partial(night_init, classes),
            night_forward,
            (Term("ce", night_loss, ("night.logits", "batch.label")),),
            predict=night_predict,
            needs=("tower.embed",),
            scope="recording",
            options=config.night.options(),
        ),
        Stage(
            "rater",
            functools.partial(rater_init, classes),
            rater_forward,
            (answers("rater"),),
            predict=judge(rater_forward),
            options=config.rater.options(crossfit=2),
        ),
        Stage(
            "student",
            functools.partial(student_init, classes),
            student_forward,
            (
                answers("student"),
                Term("night", kd_kl, ("student.logits", "night.logits"), 0.5),
                Term("rater", kd_kl, ("student.logits", "rater.logits"), 0.5),
                Term("words", distance, ("student.pooled", "student.words"), 0.1),
            ),
            predict=judge(student_forward),
            options=config.student.options(),
        ),
    )
    given = functools.partial(prepare, config.broken)
    return System("cascade", ("signal",), given, stages)


def deployed(config):
    """Returns options that name no file: a finished student reads none."""
    return dataclasses.replace(config, weights="")


ENTRY = Entry(
    CascadeConfig,
    make_system,
    {
        "small": {
            "data.corpus": "pulses",
            "data.zscore": "recording",
            "split": "fixed",
            "num_seeds": 1,
            "rows": ("no_teacher", "shuffled_teacher", "linear"),
        },
        "paper": {"width": 64},
    },
    deployed=deployed,
)
