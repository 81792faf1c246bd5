"""Kill a run again and again, resume it, and compare what it ends with, byte for byte.

    python -m experiments.torture --out runs/torture --kills 50

One run of the quickstart's system is left alone. Another is stopped at random, by
kill -9 or SIGTERM, while it starts, trains teacher and students, fills the teacher
cache or writes its report, and each time resumed by `eegkd distill --resume`. Then
every model, every prediction, the table and the logged numbers of both must be the
same. A run that ends before all kills are spent is compared, and the next one begun.

    --out DIR      where everything goes; the run left alone is kept for the next time
    --kills 50     how many
    --kill_seed 0  of their times and kinds
    --store STORE  windows to train on, in place of the quickstart's

All other options are those of `eegkd distill distilclip_eeg`. The exit code is 1 where
anything differs, or a stopped run does not go on.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# The quickstart with one seed and two epochs; your own options come after.
OPTIONS = (
    *("--preset", "quickstart", "--num_seeds", "1", "--rows", "no_teacher"),
    *("--train.epochs", "2", "--train.save_every_s", "0.1"),
    *("--train.teacher", "cached"),
)
EEGKD = (sys.executable, "-m", "eegkd.cli")
STARTING = 0.15  # The share of kills that hit a start: imports, compiling, restoring.
EARLY = 1.5  # Kills come so much closer than evenly spread ones, so that all hit.
FILLING = 0.7  # The share of starts that are killed in a cache fill, if they see one.
FILL_S = 0.3
KINDS = (signal.SIGKILL, signal.SIGTERM)
PATIENCE_S = 1800.0
POLL_S = 0.01


class Kill(NamedTuple):
    """One kill: its number, signal and exit code, and what it hit."""

    number: int
    signal: str
    code: int
    moment: str
    where: str
    step: int
    start_s: float


class Failed(RuntimeError):
    """The run did not do what a resumable run does."""


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kill_seed", type=int, default=0)
    parser.add_argument("--store", type=Path)
    own, options = parser.parse_known_args(argv)
    try:
        return torture(own.out.absolute(), own.kills, own.kill_seed, own.store, options)
    except Failed as error:
        _say(f"FAILED: {error}")
        return 1


def torture(
    out: Path, num_kills: int, seed: int, store: Path | None, options: Sequence[str]
) -> int:
    """Runs everything; returns 0 if all runs ended with the same bytes."""
    began = time.monotonic()
    whole = out / "whole"
    if store is None:
        store = out / "store"
        command = ["prepare", "--data.corpus", "synthetic", "--data.workers", "1"]
        _finish([*command, "--out", str(store)], out)
    options = [*OPTIONS, *options, "--store", str(store.absolute())]
    work_s = _left_alone(whole, options, out)
    pause_s = work_s / num_kills / EARLY
    _say(
        f"Left alone, it works for {work_s:.0f} s: a kill about every {pause_s:.2f} s."
    )
    rng = random.Random(seed)
    kinds = _deal(num_kills, rng)
    kills: list[Kill] = []
    differences: list[str] = []
    for turn in itertools.count():
        run = out / f"killed{seed}-{turn}"
        for kill in _kills(run, options, out, rng, pause_s, kinds):
            kills.append(kill._replace(number=len(kills) + 1))
            _say(_describe(kills[-1]))
        _finish(_command(run, options), out)
        found = differ(whole, run)
        differences += [f"{run.name}: {what}" for what in found]
        _say(f"{run.name} ended with {len(found) or 'no'} differences.")
        if not kinds:
            break
    spent = time.monotonic() - began
    record = {"kills": [kill._asdict() for kill in kills], "differences": differences}
    (out / f"torture{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    for name in ("signal", "moment", "where"):
        counts = collections.Counter(getattr(kill, name) for kill in kills)
        _say(f"{name}: " + ", ".join(f"{k} {n}" for k, n in counts.most_common()))
    for what in differences:
        _say(f"DIFFERS {what}")
    verdict = "DIFFERENT" if differences else "the same bytes"
    _say(f"{len(kills)} kills, {turn + 1} runs, {spent:.0f} s: {verdict}.")
    return 1 if differences else 0


def differ(whole: Path, run: Path) -> list[str]:
    """Lists what two finished runs do not share, and what a run should not leave."""
    files = {p.relative_to(whole) for p in whole.glob("fold*/**/*") if p.is_file()}
    wanted = sorted(p for p in files if p.suffix in (".safetensors", ".npz"))
    if not any(p.suffix == ".safetensors" for p in wanted):
        return ["the run left alone has no models"]
    wanted += [Path("results.json"), Path("splits.json")]
    found = [
        str(name)
        for name in wanted
        if not (run / name).is_file()
        or (run / name).read_bytes() != (whole / name).read_bytes()
    ]
    others = {p.relative_to(run) for p in run.glob("fold*/**/*") if p.is_file()}
    found += [f"{name} is in one run alone" for name in sorted(files ^ others)]
    left = (p for p in run.rglob(".*") if not p.is_relative_to(run / "store"))
    found += [f"{p.relative_to(run)} was left over" for p in left]
    if _rows(whole) != _rows(run):
        found.append("metrics.jsonl")
    return found


def _rows(run: Path) -> dict[Any, Any]:
    """Returns the logged numbers; a resumed run logs some steps twice."""
    rows = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        keys = ("fold", "model", "seed", "step")
        key = (*(row.pop(name) for name in keys), tuple(sorted(row)))
        rows.setdefault(key, []).append(row)
    return {key: values[-1] for key, values in rows.items()}


def _left_alone(run: Path, options: Sequence[str], out: Path) -> float:
    """Runs without kills, unless it is there; returns seconds from the first result."""
    note = out / "whole.json"
    if not note.is_file():
        if run.exists():
            raise Failed(f"{run} is unfinished or another's: delete it.")
        # The first run compiles; the second one, timed, finds programs as kills do.
        _finish(_command(out / "first", options), out)
        with _running(_command(run, options), out) as process:
            _wait_for_change(process, run)
            began = time.monotonic()
            _check_end(process, 0)
            work_s = time.monotonic() - began
        note.write_text(json.dumps({"options": list(options), "work_s": work_s}))
        again = differ(out / "first", run)
        if again:
            raise Failed(f"two runs left alone differ: {', '.join(again)}")
    record = json.loads(note.read_text())
    if record["options"] != list(options):
        raise Failed(f"{out} was made with other options: choose another --out.")
    return record["work_s"]


def _deal(num_kills: int, rng: random.Random) -> list[signal.Signals]:
    """Returns the kills' signals: of each two one is of either kind, in any order."""
    pairs = (rng.sample(KINDS, len(KINDS)) for _ in range(0, num_kills, len(KINDS)))
    return list(itertools.chain.from_iterable(pairs))[:num_kills]


def _kills(
    run: Path,
    options: Sequence[str],
    out: Path,
    rng: random.Random,
    pause_s: float,
    kinds: list[signal.Signals],
) -> Iterator[Kill]:
    """Starts the run and kills it, until it ends by itself or `kinds` is used up."""
    start_s = 0.0
    while kinds:
        kind, pause = kinds[-1], rng.uniform(0, 2 * pause_s)
        starting = bool(start_s) and rng.random() < STARTING
        watches = rng.random() < FILLING
        with _running(_command(run, options), out) as process:
            began = time.monotonic()
            if starting:
                _sleep(process, rng.uniform(0, start_s))
            else:
                _wait_for_change(process, run)
                start_s = time.monotonic() - began
                # The fill is short beside the trainings: even kills would miss it.
                if _sleep(process, pause, lambda w=watches: w and _filling(run)):
                    _sleep(process, rng.uniform(0, FILL_S))
            if process.poll() is None:
                process.send_signal(kind)
            code = _wait(process)
        if code == 0:
            return
        if code not in (-kind, 130):
            raise Failed(f"exit code {code} after {kind.name}: see {out / 'log.txt'}")
        kinds.pop()  # Spent only now: a run that ends by itself leaves it to the next.
        where, step = _where(run)
        moment = "starting" if starting else "working"
        yield Kill(0, kind.name, code, moment, where, step, start_s)


def _where(run: Path) -> tuple[str, int]:
    """Returns the place at which a run stopped, and the newest step saved there."""
    if not (run / "config.json").is_file():
        return "before the run", 0
    if _filling(run):
        return "cache fill", 0
    trainings = [p.parent for p in run.glob("fold*/**/checkpoints")]
    open_ones = [p for p in trainings if not (p / "done.json").is_file()]
    if open_ones:
        # Small models are trained side by side.
        names = sorted({p.relative_to(run).parts[1] for p in open_ones})
        saves = [p for one in open_ones for p in (one / "checkpoints").glob("[0-9]*")]
        saving = any(any(p.glob("checkpoints/.writing-*")) for p in open_ones)
        step = max((int(p.name) for p in saves), default=0)
        return "+".join(names) + (", saving" if saving else ""), step
    if trainings:
        return f"{trainings[0].relative_to(run).parts[1]}, just ended", 0
    if (run / "report.html").is_file():
        return "the end", 0
    begun = [p.parent.name for p in run.glob("fold*/**/done.json")]
    return f"between trainings, after {len(begun)}", 0


def _inside(run: Path) -> Iterator[Path]:
    """Yields what lies in the folders of a run that may be at work."""
    # Not `glob`: before Python 3.13 it fails where a folder goes while it looks.
    for where, folders, files in os.walk(run):
        yield from (Path(where, name) for name in (*folders, *files))


def _filling(run: Path) -> bool:
    """Returns whether a teacher cache exists and is incomplete."""
    for folder in (p for p in _inside(run) if p.name == "cache"):
        try:
            record = json.loads((folder / "manifest.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return folder.is_dir()
        if not record["complete"]:
            return True
    return False


def _command(run: Path, options: Sequence[str]) -> list[str]:
    if (run / "config.json").is_file():
        return ["distill", "--resume", str(run)]
    return ["distill", "distilclip_eeg", *options, "--out", str(run)]


@contextlib.contextmanager
def _running(command: Sequence[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the command; leaves nothing of it running."""
    out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=str(out / "xla"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with (out / "log.txt").open("ab") as log:
        log.write(f"\n$ eegkd {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [*EEGKD, *command], stdout=log, stderr=log, env=environment
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _finish(command: Sequence[str], out: Path) -> None:
    with _running(command, out) as process:
        _check_end(process, 0)


def _check_end(process: subprocess.Popen[bytes], code: int) -> None:
    found = _wait(process)
    if found != code:
        raise Failed(f"exit code {found} of {process.args}: see log.txt")


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise Failed(f"no end after {PATIENCE_S:.0f} s: {process.args}") from error


def _wait_for_change(process: subprocess.Popen[bytes], run: Path) -> None:
    """Waits until a run that was started has done something new, or ended."""
    before, deadline = _state(run), time.monotonic() + PATIENCE_S
    while process.poll() is None and _state(run) == before:
        if time.monotonic() > deadline:
            process.kill()
            raise Failed(f"nothing new in {run} for {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)


def _state(run: Path) -> tuple[int, frozenset[str]]:
    """Returns what grows while a run works, and not while it starts."""
    log = run / "metrics.jsonl"
    names = frozenset(
        str(p)
        for p in _inside(run)
        if p.name.isdigit() or p.name == "done.json" or "cache" in p.parts
    )
    return log.stat().st_size if log.is_file() else 0, names


def _sleep(
    process: subprocess.Popen[bytes],
    seconds: float,
    until: Callable[[], bool] = lambda: False,
) -> bool:
    """Waits while the process runs; tells whether `until` ended it."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if until():
            return True
        time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
    return False


def _describe(kill: Kill) -> str:
    return (
        f"{kill.number:3d}  {kill.signal:<8}{kill.code:>4}  {kill.moment:<9}"
        f"{kill.where}  step {kill.step}  (start {kill.start_s:.1f} s)"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
