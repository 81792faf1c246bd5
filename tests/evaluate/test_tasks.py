"""What follows from the kind of a corpus's labels."""

import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.evaluate.metrics import METRICS, per_subject, score
from eegkd.evaluate.predictions import make_predictions
from eegkd.evaluate.rows import MODELS, SHOWN, in_order
from eegkd.evaluate.tasks import task_of


def manifest(classes="ab", **task):
    return {"corpus": "tiny", "classes": list(classes)} | (
        {"task": task} if task else {}
    )


def test_two_classes_and_more_have_their_metrics():
    two, three = task_of(manifest()), task_of(manifest("abc"))
    assert (two.kind, two.metrics[0], two.monitor) == ("binary", "auroc", "auroc")
    assert (three.kind, three.metrics[0]) == ("classes", "balanced_accuracy")
    assert three.monitor == "kappa"
    assert {*two.metrics, *three.metrics} <= set(METRICS)
    prob = np.array([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2]])
    np.testing.assert_array_equal(three.decide(prob), [1, 0])


def test_a_corpus_names_the_metrics_of_its_field():
    task = task_of(manifest("abcde", metrics=["macro_f1", "kappa"]))
    assert (task.kind, task.metrics, task.monitor) == (
        "classes", ("macro_f1", "kappa"), "kappa",
    )  # fmt: skip
    assert task_of(manifest("abc", monitor="macro_f1")).monitor == "macro_f1"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "ranks"}, "'ranks'; choose from binary, classes, labels, answers"),
        ({"metrics": ["f9"]}, "names the metric 'f9'; there are accuracy"),
        ({"kind": "labels", "metrics": ["auroc"]}, "metric 'auroc'; there are macro_a"),
        ({"metrics": ["macro_ap"]}, "names the metric 'macro_ap'; there are accuracy"),
        ({"kind": "answers"}, "'answers', which has no metrics yet"),
    ],
)
def test_what_cannot_be_judged_is_refused(task, message):
    with pytest.raises(InputError, match=f"The task of corpus tiny .*{message}"):
        task_of(manifest("abc", **task))


def test_several_labels_are_decided_one_by_one_and_drawn_by_class():
    task = task_of(manifest("abc", kind="labels", metrics=["exact_match"]))
    prob = np.array([[0.2, 0.7, 0.5], [0.5, 0.3, 0.9]])
    np.testing.assert_array_equal(
        task.decide(prob), [[False, True, True], [True, False, True]]
    )
    assert (task.sampler, task.monitor) == ("balanced", "macro_auroc")
    usual = task_of(manifest("abc") | {"multilabel": True})
    assert (usual.kind, usual.metrics[0]) == ("labels", "macro_auroc")
    assert usual.tie == "negative_bce"
    assert not task_of(manifest("abc")).tie
    odd = manifest("abc", kind="classes") | {"multilabel": True}
    with pytest.raises(InputError, match="'classes', and its windows have several"):
        task_of(odd)


def test_predictions_of_several_labels_are_kept_and_not_scored_as_classes():
    prob = np.full((2, 3), 0.5)
    made = make_predictions(prob, [[0, 1, -1], [1, 1, 0]], ["a", "b"])
    assert made.label.dtype == np.float32
    for judge in (
        lambda: score(made, ["accuracy"]),
        lambda: per_subject(made, "auroc"),
    ):
        with pytest.raises(InputError, match="does not judge windows of several"):
            judge()
    for wrong in ([[0, 1], [1, 1]], [[0, 1, 2], [1, 1, 0]]):
        with pytest.raises(ValueError, match="rows of k=3 values"):
            make_predictions(prob, wrong, ["a", "b"])


def test_known_rows_come_first():
    names = ["mine", "linear", "student", "other", "teacher"]
    assert in_order(names) == ["teacher", "student", "linear", "mine", "other"]
    assert set(SHOWN) <= set(MODELS)
