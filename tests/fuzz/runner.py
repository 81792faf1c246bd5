"""Reads damaged inputs in a process that is watched, and started again if need be.

    python -m tests.fuzz.runner TARGET SEED...     repeats seeds (0:50 is a range)
    python -m tests.fuzz.runner --all 50           prints the figures of every target

One process serves all targets and seeds, so that imports are paid for once. It may take
2 GiB more than the imports, and 20 s a seed: of work, or asleep.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz import watch
from tests.fuzz.serve import DAMAGE, STACK, Outcome, last_lines, serve

LIMIT_S, STARTING_S, TICK_S = 20.0, 120.0, 0.5
TARGETS = "tests.fuzz.targets"


def repeats(outcome: Outcome) -> str:
    """Returns the command that repeats a seed."""
    return f"python -m tests.fuzz.runner {outcome.target} {outcome.seed}"


class Runner:
    """Asks the serving process for one seed after the other."""

    def __init__(self, work: Path, targets: str = TARGETS, limit_s: float = LIMIT_S):
        self.work, self.targets, self.limit_s = work, targets, limit_s
        self.process: Any = None
        self.link: Any = None
        self.ready: set[str] = set()

    def run(self, name: str, seeds: Iterable[int | str]) -> list[Outcome]:
        """Reads a target with each seed."""
        return [self.attempt(name, seed) for seed in seeds]

    def attempt(self, name: str, seed: int | str) -> Outcome:
        """Reads a target once; ends the process if it hangs."""
        if self.process is None:
            self._start()
        if name not in self.ready:
            said = self._ask((name, None), STARTING_S)
            if said != "":
                raise RuntimeError(f"{name}: no sound input: {said}")
            self.ready.add(name)
        start = time.monotonic()
        found = self._ask((name, seed), self.limit_s)
        if isinstance(found, Outcome):
            return found
        seconds = time.monotonic() - start
        done = tuple((self.work / DAMAGE).read_text().splitlines())
        return Outcome(name, seed, found[0], seconds, 0, done, found[1])

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        args = (theirs, self.targets, self.work)
        self.process = context.Process(target=serve, args=args)
        self.process.start()
        theirs.close()
        self.ready = set()

    def _ask(self, question: Any, limit_s: float) -> Any:
        try:
            self.link.send(question)
            if self._waits(limit_s):
                return self.link.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.close()
            return "crash", f"the process ended with {code}"
        os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.3)
        stack = (self.work / STACK).read_text()
        self.close()
        return "hang", f"no end in {limit_s:.0f} s:\n{last_lines(stack, 20)}"

    def _waits(self, limit_s: float) -> bool:
        """Waits for an answer; False after that much work, or as long asleep.

        Time in which others have the machine counts for nothing.
        """
        begun, _ = last, _ = watch.group(self.process.pid)
        asleep = 0.0
        while not self.link.poll(TICK_S):
            used, runs = watch.group(self.process.pid)
            works = runs or used - last > TICK_S / 10
            asleep = 0.0 if works else asleep + TICK_S
            last = used
            if asleep >= limit_s or used - begun >= limit_s:
                return False
        return True

    def close(self) -> None:
        """Ends the process and all that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.link.close()
        self.process = None


def figures(outcomes: Sequence[Outcome]) -> str:
    """Lays out a line for each target."""
    head = ("target", "seeds", "refused", "read", "failed", "slowest s", "peak MB")
    line = "{:<14} {:>6} {:>8} {:>6} {:>7} {:>10} {:>8}"
    lines = [line.format(*head)]
    for name in dict.fromkeys(x.target for x in outcomes):
        own = [x for x in outcomes if x.target == name]
        kinds = [sum(x.kind == kind for x in own) for kind in ("refused", "read")]
        failed = sum(x.failed for x in own)
        slowest = f"{max(x.seconds for x in own):.2f}"
        peak = f"{max(x.peak for x in own) / 1e6:.0f}"
        lines.append(line.format(name, len(own), *kinds, failed, slowest, peak))
    return "\n".join(lines)


def failures(outcomes: Sequence[Outcome], most: int = 10) -> str:
    """Describes failures, one of a kind: what was done, what happened, how again."""
    bad: dict[Any, list[Outcome]] = {}
    for x in outcomes:
        if x.failed:
            bad.setdefault((x.target, x.kind, _place_of(x.words)), []).append(x)
    texts = [
        f"{len(own)} x {own[0].kind}: {repeats(own[0])}\n"
        f"  damage: {'; '.join(own[0].damage)}\n{own[0].words}"
        for own in list(bad.values())[:most]
    ]
    return "\n\n".join(
        [*texts, *([f"... {len(bad)} kinds"] if len(bad) > most else [])]
    )


def _place_of(words: str) -> str:
    """Returns the last place in the package that a traceback names."""
    places = [x.strip() for x in words.splitlines() if "/eegkd/" in x]
    return places[-1] if places else words[:40]


def main(args: Sequence[str]) -> int:
    """Runs the command."""
    everything = args[0] == "--all"
    names = [args[0]]
    seeds: list[int | str] = []
    for text in args[1:]:
        first, _, stop = text.rpartition(":")
        if text.isdigit() and not everything:
            seeds.append(int(text))
        elif everything or (first.isdigit() and stop.isdigit()):
            seeds += range(int(first or 0), int(stop))
        else:
            seeds.append(text)
    if everything:
        names = [t.name for t in importlib.import_module(TARGETS).TARGETS]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as work:
        runner = Runner(Path(work))
        try:
            for name in names:
                outcomes += runner.run(name, seeds)
                sys.stderr.write(f"{name} done\n")
        finally:
            runner.close()
    if not everything and len(outcomes) < 20:
        for x in outcomes:
            said = f"{x.kind}, {x.seconds:.2f} s: {'; '.join(x.damage)}\n{x.words}"
            sys.stdout.write(f"{x.target} {x.seed}: {said}\n")
    else:
        sys.stdout.write(f"{failures(outcomes, 100)}\n")
    sys.stdout.write(f"\n{figures(outcomes)}\n")
    return int(any(x.failed for x in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
