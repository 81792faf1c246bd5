"""DistilCLIP-EEG: a Conformer aligned with class texts, distilled into a shallower one.

The teacher is a two-tower CLIP: windows through a Conformer, class texts through BERT
with learnable prompts, both projected to one space and trained by a symmetric
contrastive loss L1. The student keeps the teacher's class vectors, which are constants
at inference, and learns from `(1 - alpha) L1 + alpha t^2 KL(teacher || student)`.

Without a teacher (`init` is given no earlier stage) the student has its own text tower
and a random start: that is the control `no_teacher`.

References:
    Wang et al., "DistilCLIP-EEG", IEEE JBHI 2025, doi 10.1109/JBHI.2025.3603022. The
    full text was not at hand: sizes reproduce the two published totals, 30.8 M and
    17.9 M, and every other choice has a switch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.errors import InputError
from eegkd.losses import (
    Term,
    binary_cross_entropy,
    binary_kd_kl,
    clip_loss,
    cosine_distance,
    cross_entropy,
    kd_kl,
)
from eegkd.models import Conformer, LinearHead, Projection, apply_params, skip_init
from eegkd.systems import Stage, System, keep_all
from eegkd.systems.channels import see_channels, student_columns
from eegkd.systems.distilclip_eeg.config import DistilClipConfig, TextConfig
from eegkd.systems.distilclip_eeg.text import (
    TextSide,
    ensemble,
    fixed_text,
    make_text_side,
)
from eegkd.typing import Array, Batch, Float, Int, PyTree, StepKeys, Tensors, Variables

MAX_LOGIT_SCALE = 100.0
INITIAL_LOGIT_SCALE = 1 / 0.07


def make_system(config: DistilClipConfig) -> System:
    """Builds the two stages, `teacher` and `student`, of one configuration.

    Raises:
        InputError: If the data lack one of the student's channels, or their windows
            have several classes each, which no text of one class is aligned with.
    """
    if config.signal.multilabel and config.text.source != "none":
        raise InputError(
            f"--text.source {config.text.source}: these windows may have several "
            "classes, and a window is aligned with the text of one. Give --text.source "
            "none (a linear head, distilled class by class), or use the system dlink."
        )
    text = make_text_side(config)
    stages = (_teacher(config, text), _student(config, text))
    system = System("distilclip_eeg", ("signal",), keep_all, stages)
    return see_channels(system, student_columns(config))


def _teacher(config: DistilClipConfig, text: TextSide | None) -> Stage:
    encoder = Conformer(config.encoder("teacher"))

    def init(
        key: Array,
        batch: Batch,
        upstream: Mapping[str, Variables],
        loaded: PyTree | None = None,
    ) -> Variables:
        return _init_tower(config, encoder, text, key, batch, loaded)

    return Stage(
        name="teacher",
        init=init,
        forward=functools.partial(_forward, config, encoder, text),
        terms=(_hard_term(config, "teacher", weight=1.0),),
        predict=functools.partial(_predict, config, encoder, text, "teacher"),
        load=text.load if text else None,
        labels=parameter_groups(config),
        finish=functools.partial(_finish, text),
    )


def _student(config: DistilClipConfig, text: TextSide | None) -> Stage:
    if config.student_channels and config.eeg.stem != "conv1d":
        raise InputError(
            f"--student_channels: the stem {config.eeg.stem} takes channels as "
            "neighbours in a picture, of which a few are another: give --eeg.stem "
            "conv1d."
        )
    encoder = Conformer(config.encoder("student"))
    student, kd = config.student, config.kd
    columns = student_columns(config)

    def init(
        key: Array,
        batch: Batch,
        upstream: Mapping[str, Variables],
        loaded: PyTree | None = None,
    ) -> Variables:
        if "teacher" not in upstream:
            return _init_tower(config, encoder, text, key, batch, loaded)
        teacher = upstream["teacher"]
        given = fixed_text(teacher.frozen) if text is not None else None
        own = _init_tower(config, encoder, given, key, batch)
        if student.init == "skip":
            eeg = skip_init(teacher.params["eeg"], own.params["eeg"], columns)
            own = own._replace(params=own.params | {"eeg": eeg})
        return own

    terms = [
        _hard_term(config, "student", weight=1.0 - kd.alpha),
        Term(
            "kd",
            functools.partial(
                binary_kd_kl if config.signal.multilabel else kd_kl,
                temperature=kd.temperature,
            ),
            ("student.kd_logits", "teacher.kd_logits"),
            kd.alpha,
        ),
    ]
    if kd.lambda_cos:
        inputs = ("student.projected", "teacher.projected")
        terms.append(Term("cosine", cosine_distance, inputs, kd.lambda_cos))
    return Stage(
        name="student",
        init=init,
        forward=functools.partial(_forward, config, encoder, text),
        terms=tuple(terms),
        predict=functools.partial(_predict, config, encoder, text, "student"),
        load=text.load if text else None,
        labels=parameter_groups(config),
        finish=functools.partial(_finish, text),
    )


def _hard_term(config: DistilClipConfig, stage: str, *, weight: float) -> Term:
    """Makes the loss on labels: L1 against class texts, or cross-entropy."""
    labelled = "batch.labelled"
    hard = config.student.hard if stage == "student" else "l1"
    if config.text.source == "none" or hard == "ce":
        inputs = (f"{stage}.logits", "batch.label")
        several = config.signal.multilabel
        loss = binary_cross_entropy if several else cross_entropy
        return Term("ce", loss, inputs, weight, labelled)
    inputs = (
        f"{stage}.projected",
        f"{stage}.text",
        f"{stage}.logit_scale",
        "batch.label",
    )
    loss = functools.partial(clip_loss, positives=config.loss.positives)
    if not config.loss.global_batch:
        loss = functools.partial(_local_clip_loss, positives=config.loss.positives)
    return Term("l1", loss, inputs, weight, labelled)


def _local_clip_loss(
    eeg: Array, text: Array, scale: Array, label: Array, *, positives: Any
) -> Array:
    """Computes L1 on each device's own part of the batch: it takes no `axis_name`."""
    return clip_loss(eeg, text, scale, label, positives=positives)


def _init_tower(
    config: DistilClipConfig,
    encoder: Conformer,
    text: TextSide | None,
    key: Array,
    batch: Batch,
    loaded: PyTree | None = None,
) -> Variables:
    eeg_key, head_key, text_key = jax.random.split(key, 3)
    signal = jnp.asarray(batch["signal"])[:1]
    eeg = encoder.init({"params": eeg_key}, signal)
    pooled = jnp.zeros((1, encoder.cfg.dim))
    state: dict[str, Any] = {key: eeg[key] for key in eeg if key != "params"}
    num_classes = len(config.signal.classes)
    if text is None:
        head = LinearHead(num_classes).init(head_key, pooled)["params"]
        return Variables({"eeg": eeg["params"], "head": head}, {}, state)
    projection = Projection(config.proj.dim).init(head_key, pooled)["params"]
    params, frozen = text.init(text_key, loaded)
    trained = {
        "eeg": eeg["params"],
        "projection": projection,
        "tau": jnp.log(jnp.asarray(INITIAL_LOGIT_SCALE, jnp.float32)),
    }
    trained |= {"text": params} if params else {}
    state["class_counts"] = jnp.ones(num_classes)
    return Variables(trained, frozen, state)


def _forward(
    config: DistilClipConfig,
    encoder: Conformer,
    text: TextSide | None,
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Tensors],
    *,
    train: bool,
    key: StepKeys | None,
) -> tuple[Tensors, Any]:
    """Encodes a batch; tensors of `Conformer` and those of the shared space.

    Returns:
        Besides the encoder's tensors: `projected [b, d]` (length one), `text [b, d]`
        (the text drawn for each example's class), `logit_scale`, `logits [b, k]` for
        prediction and `kd_logits [b, k]` for distillation; and the new state.
    """
    params, state = variables.params, dict(variables.state)
    statistics = {k: v for k, v in state.items() if k != "class_counts"}
    apply: Any = encoder.apply  # Linen's type does not know `mutable`
    out, updated = apply(
        {"params": params["eeg"]} | statistics,
        batch["signal"],
        train=train,
        rngs={"dropout": key.local} if key is not None else {},
        mutable=list(statistics) if train else [],
    )
    state |= updated
    if text is None:
        num_classes = len(config.signal.classes)
        logits = apply_params(LinearHead(num_classes), params["head"], out["pooled"])
        return {**out, "logits": logits, "kd_logits": logits}, state
    projected = apply_params(
        Projection(config.proj.dim), params["projection"], out["pooled"]
    )
    side = text if "text" in params else fixed_text(variables.frozen)
    vectors = (
        side.draw(params.get("text", {}), variables.frozen, key)
        if key is not None
        else class_vectors(text, variables)
    )
    scale = jnp.minimum(jnp.exp(params["tau"]), MAX_LOGIT_SCALE)
    cosine = jnp.matmul(projected, vectors.T, precision=jax.lax.Precision.HIGHEST)
    tensors = {
        **out,
        "projected": projected,
        "logit_scale": scale,
        "logits": scale * cosine,
        "kd_logits": config.kd.logit_scale * cosine,
    }
    if train:
        label = batch["label"]
        tensors["text"] = vectors[jnp.maximum(label, 0)]
        state["class_counts"] = state["class_counts"] + _count(label, len(vectors))
    return tensors, state


def _count(label: Int[Array, " b"], num_classes: int) -> Float[Array, " k"]:
    return jnp.sum(jax.nn.one_hot(label, num_classes), axis=0)


def class_vectors(text: TextSide | None, variables: Variables) -> Float[Array, "k d"]:
    """Returns the constants of a finished stage, or encodes every text of a class."""
    if "class_vectors" in variables.frozen:
        return variables.frozen["class_vectors"]
    if text is None:
        raise ValueError("A system without text has no class vectors.")
    every = text.encode_all(variables.params["text"], variables.frozen)
    return ensemble(every)


def _finish(text: TextSide | None, variables: Variables) -> Variables:
    """Replaces the text tower by its constants: nothing deployed holds a text model."""
    if text is None or "text" not in variables.params:
        return variables
    every = text.encode_all(variables.params["text"], variables.frozen)
    params = {k: v for k, v in variables.params.items() if k != "text"}
    frozen = {"texts": every, "class_vectors": ensemble(every)}
    return variables._replace(params=params, frozen=frozen)


def _predict(
    config: DistilClipConfig,
    encoder: Conformer,
    text: TextSide | None,
    stage: str,
    variables: Variables,
    batch: Batch,
) -> Float[Array, "b k"]:
    """Computes class probabilities from the signal alone.

    The EEG-to-text half of L1 is cross-entropy on `z + log n` with n the class counts
    of the batch, so the log prior that training saw is added back.
    """
    tensors, _ = _forward(
        config, encoder, text, variables, batch, {}, train=False, key=None
    )
    logits = tensors["logits"]
    if config.signal.multilabel:
        return jax.nn.sigmoid(logits)
    hard = config.student.hard if stage == "student" else "l1"
    if text is not None and hard == "l1":
        logits = logits + jnp.log(variables.state["class_counts"])
    return jax.nn.softmax(logits, axis=-1)


def parameter_groups(config: DistilClipConfig) -> Callable[[Any], Any] | None:
    """Labels BERT's loaded weights, if they are trained, for their smaller rate.

    Random weights have nothing to keep and learn at the full rate.
    """
    if not config.text.bert:
        return None

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: (
                "bert" if "bert" in jax.tree_util.keystr(path) else "default"
            ),
            params,
        )

    return labels


def deployed(config: DistilClipConfig) -> DistilClipConfig:
    """Returns options that read no text and no BERT: finished stages hold vectors."""
    if config.text.source == "none":
        return config
    text = TextConfig(source="random_class_vectors")
    return dataclasses.replace(config, text=text)
