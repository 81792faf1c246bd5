"""Rows that have not learned are named, and rows that have are not."""

import numpy as np
import pytest

from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.evidence import Evidence
from eegkd.evaluate.learned import ERRORS, unlearned_notes, validation_score
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import make_predictions, select
from tests.support.stores import toy_store

STORE: WindowStore = toy_store()
PEOPLE, WINDOWS = 8, 40


def predicted(strength, seed, *, num_classes=3):
    """Windows whose true class has `strength` more of a logit than the others."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, PEOPLE * WINDOWS)
    logit = rng.normal(size=(len(label), num_classes))
    logit[np.arange(len(label)), label] += strength
    prob = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    subject = [f"s{i // WINDOWS}" for i in range(len(label))]
    return make_predictions(prob, label, subject)


def best_of_noise(seed, num=30):
    """The predictions of noise that a choice by validation kappa would keep."""
    tries = [predicted(0.0, [seed, i]) for i in range(num)]
    first = tries[0].label
    tries = [p._replace(label=first) for p in tries]
    return max(tries, key=lambda p: score(p, ["kappa"])["kappa"])


def evidence_of(val):
    nothing = np.arange(0)
    fold = Fold(0, nothing, nothing, nothing)
    return Evidence(test={}, val=val, store=STORE, fold=fold)


def learned(p, metric="kappa"):
    value, error, chance = validation_score(p, metric)
    return value > chance + ERRORS * error


def test_the_best_of_thirty_guesses_has_not_learned():
    kept = [best_of_noise(seed) for seed in range(6)]
    kappas = [score(p, ["kappa"])["kappa"] for p in kept]
    assert np.mean(kappas) > 0.05  # what a look at the figure would call learned
    assert sum(map(learned, kept)) <= 1


def test_a_weak_but_real_net_has_learned():
    assert learned(predicted(0.8, 3))


def test_people_are_drawn_and_not_windows():
    """One person who is read perfectly, and seven who are not, is no skill."""
    p = predicted(0.0, 5)
    prob = p.prob.copy()
    prob[:WINDOWS] = np.eye(3)[p.label[:WINDOWS]]
    one = p._replace(prob=prob)
    assert validation_score(one, "kappa")[0] > 0.08
    assert not learned(one)
    scattered = np.random.default_rng(0).permutation(len(p.label))
    assert validation_score(one._replace(subject=p.subject[scattered]), "kappa")[1] < (
        validation_score(one, "kappa")[1] / 1.5
    )


def test_chance_is_that_of_the_metric():
    p = predicted(0.0, 2, num_classes=2)
    value, error, chance = validation_score(p, "auroc")
    assert chance == pytest.approx(0.5, abs=0.02)
    assert abs(value - chance) < ERRORS * error
    alone = p._replace(label=np.zeros_like(p.label))
    assert np.isnan(validation_score(alone, "auroc")).all()
    two = select(p, np.isin(p.subject, ["s0", "s1"]))
    two = two._replace(label=(two.subject == "s0").astype(np.int32))
    assert np.isnan(validation_score(two, "auroc")).all()


def test_the_note_names_the_row_and_how_often():
    good, bad = predicted(2.0, 0), predicted(0.0, 1)
    val = {"small_net": {0: [good], 1: [bad]}, "linear": {0: [good]}, "student": {}}
    (note,) = unlearned_notes(evidence_of(val))
    assert note.startswith("small_net has not learned (1 of its 2 trainings): its ")
    assert "validation kappa of" in note
    assert unlearned_notes(evidence_of({"small_net": {0: [good]}})) == []
    unasked = bad._replace(label=np.full_like(bad.label, -1))
    assert unlearned_notes(evidence_of({"small_net": {0: [unasked]}})) == []
