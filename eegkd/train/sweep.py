"""Sweeps: students of one structure, trained together by one compiled program.

Seeds and loss weights differ in arrays alone (parameters, keys, weights, batches), so
one step, mapped over a leading axis of members, trains them all. It pays where a small
step leaves a device idle: on a GPU, not on a CPU. The numbers are those of training one
member after another: every draw and every batch is the same; sums inside a mapped
matrix product or convolution may be taken in another order.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.errors import InputError
from eegkd.systems import System, get_stage
from eegkd.train.loop import ONCE, LoopOptions, run_loop, train
from eegkd.train.loop_state import History, Loader, LoopState, Row
from eegkd.train.parallel import MakeStep, Runner
from eegkd.train.state import TrainState, stack, unstack
from eegkd.typing import Batch, PyTree, Variables

AXIS = "members"
Evaluate = Callable[[Variables], Sequence[Mapping[str, float]]]


class Point(NamedTuple):
    """One setting of a sweep.

    Attributes:
        name: Name of its rows and folders.
        seed: Seed of initialisation, data order and dropout.
        weights: Weights of all terms of constant weight, as `init_state` takes them.
    """

    name: str
    seed: int
    weights: dict[str, float]


class Member(NamedTuple):
    """One training of a sweep, before its first step.

    Attributes:
        name: Name of its rows and folders.
        state: Result of `init_state`.
        frozen: The stage's frozen variables.
        upstream: Earlier stages' variables. The same objects in every member are kept
            once on the device.
        loader: Batches. A loader shared by all members is read once per step.
    """

    name: str
    state: TrainState
    frozen: PyTree
    upstream: Mapping[str, Variables]
    loader: Loader


class Sweep(NamedTuple):
    """A step that maps over members, compiled once for each number of them.

    Attributes:
        step: `(mesh, shares upstream, shares batch) -> step`, its state and frozen
            variables stacked along the mesh.
        devices: Devices that the members are divided over.
    """

    step: Callable[[Mesh, bool, bool], Any]
    devices: Sequence[Any]


def sweep_weights(
    system: System,
    stage_name: str,
    grid: Mapping[str, Sequence[float]],
    *,
    seeds: Sequence[int] = (0,),
) -> list[Point]:
    """Lists every combination of loss weights and seeds.

    Args:
        system: System of the stage.
        stage_name: Stage whose terms are weighed.
        grid: The weights to try, by the name of the term; other terms keep theirs.
        seeds: Repetitions of every setting.

    Returns:
        One point for `init_state(..., key=jax.random.key(point.seed),
        weights=point.weights)`, seeds moving fastest.

    Example:
        >>> from eegkd.systems import distilclip_eeg
        >>> from eegkd.systems.distilclip_eeg.config import DistilClipConfig
        >>> system = distilclip_eeg.make_system(DistilClipConfig())
        >>> points = sweep_weights(system, "student", {"kd": (0.1, 1.0)}, seeds=(0, 1))
        >>> [point.name for point in points]
        ['kd=0.1-seed0', 'kd=0.1-seed1', 'kd=1-seed0', 'kd=1-seed1']

    Raises:
        ValueError: If the grid names no term of constant weight, or has no points.
    """
    terms = get_stage(system, stage_name).terms
    base = {t.name: float(t.weight) for t in terms if not callable(t.weight)}
    unknown = sorted(set(grid) - set(base))
    if unknown:
        raise ValueError(
            f"Stage {stage_name!r} has no term of constant weight {', '.join(unknown)};"
            f" it has {', '.join(base) or 'none'}."
        )
    points = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, map(float, values), strict=True))
        label = "-".join(f"{name}={value:g}" for name, value in chosen.items())
        for seed in seeds:
            name = f"{label}-seed{seed}" if label else f"seed{seed}"
            points.append(Point(name, int(seed), base | chosen))
    if not points:
        raise ValueError(f"The sweep has no points: grid {dict(grid)}, seeds {seeds}.")
    return points


def make_sweep(make_step: MakeStep, devices: Sequence[Any] | None = None) -> Sweep:
    """Maps a step over members; several devices share the members, not the batch.

    Args:
        make_step: As for `make_runner`; called with None, because members do not
            reduce over one another.
        devices: Devices to use; all by default.
    """

    @functools.cache
    def step(mesh: Mesh, one_upstream: bool, one_batch: bool) -> Any:
        shared = (False, False, one_upstream, one_batch)
        mapped = jax.vmap(make_step(None), in_axes=[None if s else 0 for s in shared])
        if mesh.size > 1:
            # Not left to the compiler: members need nothing from one another.
            mapped = jax.shard_map(
                mapped,
                mesh=mesh,
                in_specs=tuple(PartitionSpec(*[AXIS][s:]) for s in shared),
                out_specs=PartitionSpec(AXIS),
                check_vma=False,
            )
        return jax.jit(mapped, donate_argnums=0)

    return Sweep(step, devices or jax.devices())


def train_many(
    runner: Runner | Sweep,
    members: Sequence[Member],
    *,
    num_steps: int,
    options: LoopOptions = ONCE,
    evaluate: Evaluate | None = None,
    log: Callable[[int, Row], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[TrainState, History]]:
    """Trains members: together by a `Sweep`, one after another by a `Runner`.

    Every member resumes, selects and logs as if it were trained alone. A sweep's
    checkpoint holds all its members.

    Args:
        runner: `make_sweep(make_step)` or, for example, `single(make_step)`.
        members: Trainings of one structure.
        num_steps: Updates of every member.
        options: Options of the loop; without a sweep, each member
            saves in a folder of its own in `checkpoint_dir`.
        evaluate: `variables -> metrics, one mapping per member`; the variables' arrays
            have a leading axis over the members (of length 1 without a sweep).
        log: Receives a member's number and its row.
        progress: Receives the updates done, added up over members.

    Returns:
        For each member its last state and its history, as arrays on the host.

    Raises:
        ValueError: If members differ in structure, or a sweep would draw other random
            numbers than a member alone.
        Interrupted: As `train` does.
        InputError: As `train` does.
    """
    _check_members(members)
    if isinstance(runner, Runner):
        return _train_each(
            runner,
            members,
            num_steps=num_steps,
            options=options,
            evaluate=evaluate,
            log=log,
            progress=progress,
        )
    num, first = len(members), members[0]
    mesh = member_mesh(runner.devices, num)
    one_upstream = all(_same(m.upstream, first.upstream) for m in members)
    loader = _Together([m.loader for m in members])
    spread = lambda tree: jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))
    whole = lambda tree: jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
    state = spread(stack([m.state for m in members]))
    frozen = spread(stack([m.frozen for m in members]))
    upstream = dict(first.upstream)
    if not one_upstream:
        upstream = stack([dict(m.upstream) for m in members])
    upstream = whole(upstream) if one_upstream else spread(upstream)
    step = runner.step(mesh, one_upstream, loader.shared)
    put = whole if loader.shared else spread
    loop = LoopState(
        state,
        keeps_best=evaluate is not None,
        config_hash=options.config_hash,
        names=[m.name for m in members],
    )
    run_loop(
        loop,
        lambda state, batch: step(state, frozen, upstream, put(batch)),
        loader,
        num_steps=num_steps,
        options=options,
        evaluate=evaluate and (lambda state: evaluate(state.variables(frozen))),
        log=log,
        progress=progress and (lambda done: progress(done * num)),
    )
    return list(zip(unstack(loop.state, num), loop.histories(), strict=True))


def _train_each(
    runner: Runner,
    members: Sequence[Member],
    *,
    num_steps: int,
    options: LoopOptions,
    evaluate: Evaluate | None,
    log: Callable[[int, Row], None] | None,
    progress: Callable[[int], None] | None,
) -> list[tuple[TrainState, History]]:
    starts = {id(m.loader): m.loader.get_state() for m in members}
    results = []
    for i, member in enumerate(members):
        member.loader.set_state(starts[id(member.loader)])

        def judge(state: TrainState, member: Member = member) -> Mapping[str, float]:
            alone = state.variables(member.frozen)
            (values,) = evaluate(jax.tree.map(lambda x: x[None], alone))  # type: ignore
            return values

        folder = options.checkpoint_dir and Path(options.checkpoint_dir) / member.name
        result = train(
            runner,
            member.state,
            member.loader,
            frozen=member.frozen,
            upstream=member.upstream,
            num_steps=num_steps,
            options=dataclasses.replace(options, checkpoint_dir=folder),
            evaluate=evaluate and judge,
            log=log and (lambda row, i=i: log(i, row)),
            progress=progress and (lambda done, i=i: progress(i * num_steps + done)),
        )
        results.append(result)
    return results


class _Together:
    """Reads the loaders of all members in step; one that is shared is read once."""

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self._loaders = loaders
        self._unique = list({id(loader): loader for loader in loaders}.values())
        self.shared = len(self._unique) == 1

    def __next__(self) -> Batch:
        batches = {id(loader): next(loader) for loader in self._unique}
        if self.shared:
            return batches[id(self._loaders[0])]
        each = [batches[id(loader)] for loader in self._loaders]
        return jax.tree.map(lambda *xs: np.stack(xs), *each)

    def get_state(self) -> dict[str, Any]:
        return {"loaders": [loader.get_state() for loader in self._unique]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        if len(state["loaders"]) != len(self._unique):
            raise InputError(
                f"The checkpoint is of {len(state['loaders'])} data orders, not of "
                f"{len(self._unique)}: sweep the same members, or use another --out."
            )
        for loader, own in zip(self._unique, state["loaders"], strict=True):
            loader.set_state(own)


def member_mesh(devices: Sequence[Any], num_members: int) -> Mesh:
    """Chooses as many devices as divide the members equally."""
    most = min(len(devices), num_members)
    size = next(n for n in range(most, 0, -1) if num_members % n == 0)
    return Mesh(np.array(devices[:size]), (AXIS,))


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[name] is b[name] for name in a)


def _check_members(members: Sequence[Member]) -> None:
    if not members:
        raise ValueError("A sweep needs one member or more; got none.")
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"Members need different names; got {', '.join(names)}.")
    first, want = members[0], _shapes(members[0])
    for member in members[1:]:
        have = _shapes(member)
        for part in (*want, *have):
            if have.get(part) != want.get(part):
                raise ValueError(
                    f"Members {first.name!r} and {member.name!r} cannot share a "
                    f"program: {part} is {want.get(part, 'absent')} in one and "
                    f"{have.get(part, 'absent')} in the other. Sweep models of one "
                    "structure at a time."
                )
    steps = {int(member.state.step) for member in members}
    if len(steps) > 1:
        raise ValueError(f"Members start at one step; got {sorted(steps)}.")
    kind = jax.random.key_impl(first.state.key)
    if str(kind) != "threefry2x32":
        raise ValueError(
            f"A key of kind {kind} draws other numbers in a sweep than alone: make "
            'keys by jax.random.key(seed, impl="threefry2x32").'
        )


def _shapes(member: Member) -> dict[str, str]:
    tree = {
        "state": member.state,
        "frozen": member.frozen,
        "upstream": dict(member.upstream),
    }
    shapes = jax.eval_shape(lambda tree: tree, tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            f"{x.dtype}{list(x.shape)}"
        )
        for path, x in jax.tree_util.tree_leaves_with_path(shapes)
    }
