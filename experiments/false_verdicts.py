"""How often two runs of one recipe are told apart, and a real effect is found.

A cheap model, a small network on band power, is trained with many seeds on random
splits of people. A draw takes a split, and gives the rows of a run two seeds each: all
rows are one recipe, so every verdict but `undetectable` is false. Then the effect that
a draw prints as detectable is added to its student, and `better` is to follow in four
of five. Simulated runs with the variances of those trainings follow.

`python -m experiments.false_verdicts --store STORE [--splits 40] [--draws 400]
[--simulated 10000] [--json FILE]`; STORE is what `eegkd prepare` wrote.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.baselines import band_power
from eegkd.evaluate.paired import (
    ALPHA,
    NO_TRAININGS,
    Trainings,
    detectable_effect,
    t_test,
    total_error,
)
from eegkd.evaluate.trainings import Spread, spreads_of_units, trainings_of

ROWS = ("student", "no_teacher", "alpha_0", "shuffled_teacher", "a_a")
SEEDS = 2
Figures = Mapping[str, np.ndarray]


class Rates(NamedTuple):
    """Shares of draws.

    Attributes:
        units_alone: False verdicts where the error holds people alone.
        false: False verdicts where it holds trainings too.
        two_rows: The same, of a run of two rows, which tell less of trainings.
        power: `better`, at the effect that the draw prints.
        effect: Mean effect printed.
        effect_alone: The same where the error holds people alone.
    """

    units_alone: float
    false: float
    two_rows: float
    power: float
    effect: float
    effect_alone: float


def told(
    mine: np.ndarray, other: np.ndarray, trainings: Trainings = NO_TRAININGS
) -> tuple[bool, float]:
    """Returns if a t-test finds a difference, and the effect that it prints.

    It is that of `paired_comparison`, whose sign flips would take most of the time.
    """
    d = mine.mean(axis=1) - other.mean(axis=1)
    n = len(d)
    error, df = total_error(float(d.var(ddof=1)) / n, n - 1.0, trainings)
    p = t_test(float(d.mean()), error, df, if_none=1.0)
    return p < ALPHA, detectable_effect(error, df)


def rates(draws: Sequence[Figures]) -> Rates:
    """Judges draws, in each of which all rows are of one recipe."""
    found = []
    for values in draws:
        mine, other = values["student"], values["no_teacher"]
        people = np.zeros(len(mine))
        sides = [("student", mine.shape[1]), ("student", other.shape[1])]
        whole = trainings_of(spreads_of_units(values, people), sides)
        two = {name: values[name] for name in ("student", "no_teacher")}
        less = trainings_of(spreads_of_units(two, people), sides)
        alone, both = told(mine, other), told(mine, other, whole)
        moved = mine + both[1]
        better = told(moved, other, whole)[0] and moved.mean() > other.mean()
        false = alone[0], both[0], told(mine, other, less)[0]
        found.append((*false, better, both[1], alone[1]))
    return Rates(*np.mean(found, axis=0).tolist())


def train_splits(
    store: WindowStore, *, splits: int, seeds: int, people: int, tested: int
) -> Iterator[np.ndarray]:
    """Yields each split's balanced accuracies of test people, f64[n, seed]."""
    band = store.manifest["preprocessing"].get("band") or (0.0, 0.0)
    rate = store.manifest["rate"]
    kept = np.flatnonzero((store.labels >= 0) & store.index["on_grid"])
    signal = np.asarray(store.signal[kept], np.float32)
    x = band_power(signal, rate, passband=(band[0], band[1] or rate / 2))
    label, subject = store.labels[kept], store.index["subject"][kept]
    names = np.unique(subject)
    for split in range(splits):
        order = np.random.default_rng(split).permutation(names)
        own = np.isin(subject, order[:people])
        scale = StandardScaler().fit(x[own])
        scores = []
        for seed in range(seeds):
            net = MLPClassifier((24,), max_iter=12, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                net.fit(scale.transform(x[own]), label[own])
            decided = net.predict(scale.transform(x))
            test = [subject == name for name in order[people : people + tested]]
            scores.append([balanced_accuracy_score(label[t], decided[t]) for t in test])
        yield np.array(scores).T


def draw_runs(
    trained: Sequence[np.ndarray], num: int, *, seed: int = 0
) -> Iterator[Figures]:
    """Yields runs: a split, and seeds of it for each row, none twice."""
    rng = np.random.default_rng(seed)
    for _ in range(num):
        values = trained[int(rng.integers(len(trained)))]
        chosen = rng.permutation(values.shape[1])[: SEEDS * len(ROWS)]
        parts = chosen.reshape(len(ROWS), SEEDS)
        yield {row: values[:, own] for row, own in zip(ROWS, parts, strict=True)}


def fit_variances(trained: Sequence[np.ndarray]) -> Spread:
    """Averages the variance of trainings over splits."""
    spreads = [spreads_of_units({"student": x}, np.zeros(len(x))) for x in trained]
    means = np.mean([s["student"][0] for s in spreads], axis=0)
    return Spread(*means.tolist())


def simulate_runs(own: Spread, num: int, *, people: int) -> Iterator[Figures]:
    """Yields runs of normal figures with the variances of `fit_variances`."""
    rng = np.random.default_rng(1)
    of_trainings = max(0.0, own.between - own.within) ** 0.5
    each = (own.within * people) ** 0.5
    for _ in range(num):
        yield {
            row: rng.normal(0, of_trainings, SEEDS)
            + rng.normal(0, each, (people, SEEDS))
            for row in ROWS
        }


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns the exit code."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--store", required=True)
    for name, default in (("splits", 40), ("seeds", 12), ("people", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("tested", 20), ("draws", 400), ("simulated", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(argv)
    if asked.seeds < SEEDS * len(ROWS):
        parser.error(f"--seeds {asked.seeds}: a run takes {SEEDS * len(ROWS)}.")
    store = WindowStore.open(asked.store)
    sizes = {"splits": asked.splits, "seeds": asked.seeds, "people": asked.people}
    trained = list(train_splits(store, tested=asked.tested, **sizes))
    own = fit_variances(trained)
    drawn = rates(list(draw_runs(trained, asked.draws)))
    made = simulate_runs(own, asked.simulated, people=asked.tested)
    found = {"drawn": drawn._asdict(), "simulated": rates(list(made))._asdict()}
    found["variances"] = own._asdict()
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
