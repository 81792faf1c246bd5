"""Outputs, forms and fills that the tests of the teacher cache share.

As a program, `python -m tests.support.cache_toy FOLDER` fills one, to be killed.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from eegkd.cache.fill import fill_cache, make_plan
from eegkd.cache.forms import TensorForm
from tests.support.stores import toy_store

ROOT = Path(__file__).parents[2]
LOGITS, TOKENS = (3,), (6, 8)


def forms(**options):
    return {
        "teacher.logits": TensorForm(LOGITS, "float32"),
        "teacher.tokens": TensorForm(TOKENS, "float32", **options),
    }


def outputs(num, num_views=1, seed=0):
    """Outputs [m, views, ...] with a few strong directions, as a network's."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(TOKENS[1], TOKENS[1])) * 0.6 ** np.arange(TOKENS[1])
    tokens = rng.normal(size=(num, num_views, *TOKENS)) @ mix.T + 0.5
    return {
        "teacher.logits": rng.normal(size=(num, num_views, *LOGITS)).astype("f4"),
        "teacher.tokens": tokens.astype("f4"),
    }


def producer(values):
    def produce(places, views):
        return {name: array[places, views] for name, array in values.items()}

    return produce


def ids_of(num):
    return np.arange(num) * 3 + 5


def fill(folder, num=50, *, num_views=1, shard_rows=None, values=None, **options):
    values = outputs(num, num_views) if values is None else values
    kept = {k: options.pop(k) for k in ("numbers", "pool", "rank") if k in options}
    fields = options.pop("fields", {"teacher": "abc", "system": {"name": "toy"}})
    plan = make_plan(
        fields, ids_of(num), forms(**kept), num_views=num_views, shard_rows=shard_rows
    )
    produce = options.pop("produce", producer(values))
    return fill_cache(folder, plan, produce, **options), values


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def read_all(cache, view=0):
    """Reads every window, through a store whose windows are the cache's."""
    num = len(cache.window_ids)
    index = np.arange(num)
    tensors = cache.tensors(toy_store().index["window_id"])["teacher"]
    return {
        name: dataclasses.replace(tensor, index=index).gather(index, view)
        for name, tensor in tensors.items()
    }


SLOW = dict(num=4000, num_views=2, shard_rows=40, numbers="int8")


if __name__ == "__main__":
    fill(sys.argv[1], **SLOW)
