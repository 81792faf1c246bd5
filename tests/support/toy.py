"""A two-tower system small enough for any test: a teacher and a student."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.data.windows.store import WindowStore
from eegkd.losses import Term, clip_loss, kd_kl
from eegkd.systems import Stage, System, add_terms, keep_all
from eegkd.systems.stages import class_probabilities
from eegkd.typing import Variables

CHANNELS, TIMES, WIDTH, CLASSES = 2, 6, 4, 3
CLIP = ("embedding", "text", "scale")


def normalise(x):
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-6)


def init(key, batch, earlier, *, hidden):
    del earlier
    return draw(key, batch["signal"][0].size, hidden)


@functools.partial(jax.jit, static_argnums=(1, 2))
def draw(key, fan_in, hidden):
    k1, k2, k3 = jax.random.split(key, 3)
    params = {
        "in": {
            "kernel": jax.random.normal(k1, (fan_in, hidden)) / fan_in**0.5,
            "bias": jnp.zeros(hidden),
        },
        "out": {"kernel": jax.random.normal(k2, (hidden, WIDTH)) / hidden**0.5},
        "logit_scale": jnp.ones(()),
    }
    classes = normalise(jax.random.normal(k3, (CLASSES, WIDTH)))
    state = {"mean": jnp.zeros(hidden), "count": jnp.int32(0)}
    return Variables(params, {"classes": classes}, state)


def forward(variables, batch, upstream, *, train, key, dropout=0.0):
    del upstream
    p = variables.params
    x = jnp.reshape(batch["signal"], (batch["signal"].shape[0], -1))
    x = jnp.tanh(x @ p["in"]["kernel"] + p["in"]["bias"])
    state = variables.state
    if train:
        state = {
            "mean": 0.9 * state["mean"] + 0.1 * jnp.mean(x, axis=0),
            "count": state["count"] + 1,
        }
        if dropout:
            keep = jax.random.bernoulli(key.local, 1 - dropout, x.shape)
            x = jnp.where(keep, x / (1 - dropout), 0)
    embedding = normalise(x @ p["out"]["kernel"])
    classes = variables.frozen["classes"]
    scale = jnp.minimum(jnp.exp(p["logit_scale"]), 100.0)
    return {
        "embedding": embedding,
        "text": classes[jnp.maximum(batch["label"], 0)],
        "scale": scale,
        "logits": 10 * embedding @ classes.T,
    }, state


def make_system(dropout=0.0):
    run = functools.partial(forward, dropout=dropout)

    def contrastive(name):
        inputs = (*(f"{name}.{tensor}" for tensor in CLIP), "batch.label")
        return Term("clip", clip_loss, inputs, 0.5, "batch.labelled")

    kd = Term("kd", kd_kl, ("student.logits", "teacher.logits"), 0.5)
    predict = class_probabilities(run)
    sizes = {"teacher": functools.partial(init, hidden=8),
             "student": functools.partial(init, hidden=5)}  # fmt: skip
    terms = {"teacher": (contrastive("teacher"),),
             "student": (contrastive("student"), kd)}  # fmt: skip
    stages = tuple(
        Stage(name, sizes[name], run, terms[name], predict) for name in sizes
    )
    return System("toy", ("signal",), keep_all, stages)


def make_batch(size=16, seed=0):
    """Labels of which the first quarter holds none, so that devices' counts differ."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, size).astype(np.int32)
    label[: size // 4] = -1
    label[-1] = -1
    signal = rng.normal(size=(size, CHANNELS, TIMES)).astype(np.float32)
    return {"signal": signal, "label": label}


def make_variables(system, seed=0):
    """Variables of every stage, by name."""
    batch, made = make_batch(), {}
    for i, stage in enumerate(system.stages):
        made[stage.name] = stage.init(jax.random.key(seed + i), batch, dict(made))
    return made


def distance(student, teacher):
    return jnp.sum((student - teacher) ** 2, axis=-1)


def make_matching_system():
    """The toy system whose student also follows the teacher's embedding."""
    term = Term("match", distance, ("student.embedding", "teacher.embedding"), 0.7)
    return add_terms(make_system(), "student", term)


def make_store(num=60, first_id=0):
    """A store whose windows fit the toy system."""
    rng = np.random.default_rng(0)
    index = {
        "window_id": first_id + rng.permutation(num),
        "recording_id": np.repeat([f"r{i}" for i in range(6)], num // 6),
        "subject": np.repeat([f"s{i}" for i in range(6)], num // 6),
        "start_s": np.tile(np.arange(num // 6) * 1.0, 6),
        "label": rng.choice([-1, 0, 1, 2], size=num),
    }
    manifest = {
        "corpus": "toy",
        "classes": ["a", "b", "c"],
        "channels": ["C3", "C4"],
        "rate": 6.0,
        "window_s": 1.0,
    }
    signal = rng.normal(size=(num, CHANNELS, TIMES))
    return WindowStore.from_arrays(None, signal, index, manifest)
