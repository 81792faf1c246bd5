"""Systems of windows that may have several classes each."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.config import preset_config
from eegkd.errors import InputError
from eegkd.losses import binary_cross_entropy, binary_kd_kl
from eegkd.models import EEGNetConfig
from eegkd.systems import SignalConfig, small_net
from eegkd.systems.entry import find
from eegkd.systems.stages import class_probabilities
from eegkd.typing import Variables

SIGNAL = SignalConfig(
    n_chans=2,
    n_times=400,
    classes=("a", "b", "c"),
    multilabel=True,
    channels=("C3", "C4"),
)
RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(size=(2, 5, 3)).astype(np.float32)
LABEL = RNG.integers(-1, 2, (5, 3)).astype(np.float32)


def build(name, **changes):
    entry = find(name)
    config = dataclasses.replace(preset_config(entry, "small"), signal=SIGNAL)
    for path, value in changes.items():
        group, _, field = path.partition("__")
        part = dataclasses.replace(getattr(config, group), **{field: value})
        config = dataclasses.replace(config, **{group: part})
    return entry.make_system(config)


def terms_of(stage):
    return {term.name: term for term in stage.terms}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dlink", {"kd__alpha": 0.5}),
        ("distilclip_eeg", {"text__source": "none"}),
    ],
)
def test_labels_and_soft_targets_are_compared_one_by_one(name, changes):
    teacher, student = build(name, **changes).stages
    wanted = binary_cross_entropy(LOGITS, LABEL)
    for stage in (teacher, student):
        own = terms_of(stage)["ce"]
        assert own.count == "batch.labelled"
        np.testing.assert_array_equal(own.fn(LOGITS, LABEL), wanted)
    kd = terms_of(student)["kd"].fn
    soft = binary_kd_kl(LOGITS, TEACHER, temperature=kd.keywords["temperature"])
    np.testing.assert_array_equal(kd(LOGITS, TEACHER), soft)


def test_the_router_learns_each_label_and_the_small_net_too():
    probe = terms_of(build("dlink").stages[-1])["router_probe"]
    assert probe.count == "batch.unseen_labelled"
    net = small_net.make_system(
        EEGNetConfig(n_chans=2, n_outputs=3, rate=200.0), multilabel=True
    )
    for term in (probe, terms_of(net.stages[0])["ce"]):
        np.testing.assert_array_equal(
            term.fn(LOGITS, LABEL), binary_cross_entropy(LOGITS, LABEL)
        )


def test_each_class_has_a_probability_of_its_own():
    def forward(variables, batch, upstream, *, train, key):
        return {"logits": jnp.asarray(LOGITS)}, {}

    nothing = Variables({}, {}, {})
    each = class_probabilities(forward, multilabel=True)(nothing, {})
    np.testing.assert_allclose(each, 1 / (1 + np.exp(-LOGITS)), rtol=1e-5)
    one = class_probabilities(forward)(nothing, {})
    np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "distilclip_eeg",
            {},
            "--text.source templates: .* none .*, or use the system d",
        ),
        ("dlink", {"teacher__label_smoothing": 0.1}, "--teacher.label_smoothing 0.1"),
        ("dlink", {"loss__label_smoothing": 0.2}, "--loss.label_smoothing 0.2: these"),
    ],
)
def test_what_wants_one_class_is_refused(name, changes, words):
    with pytest.raises(InputError, match=words):
        build(name, **changes)
