"""Measures of models: averages, rows of results.json, weights by class and update."""

import numpy as np

from eegkd.evaluate.assays.inside import (
    average_measured,
    measured_rows,
    weights_of,
)

GROUP = ("routing", ("alpha_embed", "alpha_block_0"))

RUNS = {
    "student": [
        {
            "alpha_embed": {"mean": 0.2, "by_class": [0.1, 0.3]},
            "alpha_block_0": {"mean": 0.8, "by_class": [0.9, 0.7]},
            "rank_tokens": {"mean": 4.0, "by_class": [4.0, None]},
        },
        {
            "alpha_embed": {"mean": 0.4, "by_class": [0.3, 0.5]},
            "alpha_block_0": {"mean": 0.6, "by_class": [0.7, 0.5]},
            "rank_tokens": {"mean": 6.0, "by_class": [6.0, None]},
        },
    ],
    "no_teacher": [{"rank_tokens": {"mean": 3.0, "by_class": [3.0, 3.0]}}],
    "linear": [{}],
}


def line(model, step, seed, embed, **more):
    watched = {
        "alpha_embed": embed,
        "alpha_block_0": 1 - embed,
        "routing_entropy": 0.5,
        "routing_variance": 0.1 * seed,
    }
    both = {f"{part}/{k}": v for part in ("train", "val") for k, v in watched.items()}
    return {"model": model, "fold": 0, "seed": seed, "step": step, **both, **more}


def test_trainings_are_averaged():
    found = average_measured(RUNS)
    assert found.keys() == {"student", "no_teacher"}
    rank = found["student"]["rank_tokens"]
    assert (rank.mean, rank.num) == (5.0, 2)
    np.testing.assert_array_equal(rank.by_class, [5.0, np.nan])
    rows = measured_rows(found)
    assert len(rows) == 4
    (row,) = (r for r in rows if r["model"] == "no_teacher")
    wanted = {"metric": "rank_tokens", "mean": 3.0, "verdict": None, "seeds": 1}
    assert wanted.items() <= row.items()


def test_weights_by_class_and_by_update():
    log = [
        {"model": "student", "fold": 0, "seed": 0, "step": 5, "loss": 1.0},
        line("student", 10, 0, 0.9),
        line("student", 10, 0, 0.5),  # After a resume: the last word counts.
        line("student", 10, 1, 0.7),
        line("student", 20, 0, 0.2),
        line("student", 20, 1, 0.4),
        line("other", 10, 0, 0.3),
    ]
    found = weights_of(log, average_measured(RUNS), *GROUP)
    assert found.keys() == {"student"}
    routing = found["student"]
    assert routing.names == ("embed", "block_0")
    np.testing.assert_allclose(routing.by_class, [[0.2, 0.4], [0.8, 0.6]])
    np.testing.assert_array_equal(routing.step, [10, 20])
    np.testing.assert_allclose(routing.val, [[0.6, 0.4], [0.3, 0.7]])
    np.testing.assert_allclose(routing.train, routing.val)
    np.testing.assert_allclose(routing.variance, [0.05, 0.05])


def test_nothing_measured_is_no_row_and_no_routing():
    found = average_measured({"linear": [{}], "small_net": []})
    assert (found, measured_rows(found)) == ({}, [])
    assert weights_of([line("student", 1, 0, 0.5)], found, *GROUP) == {}
