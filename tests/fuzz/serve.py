"""The process that reads damaged input: it is watched, and may hang or die."""

import contextlib
import faulthandler
import importlib
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.fuzz import watch
from tests.fuzz.damage import Node, damage
from tests.fuzz.formats import PLANTED
from tests.fuzz.mutations import Mutation

STACK, DAMAGE = "stack.txt", "damage.txt"


class Refused(Exception):
    """A verb ended with exit code 2."""


class Target(NamedTuple):
    """Something that is read from files.

    Attributes:
        name: A word.
        make: Writes sound input into an empty folder.
        read: `(folder, out) -> numbers`; raises `InputError` or `Refused`.
        own: Patterns of the files to damage -> what knows their format.
        sealed: True where damage is found or changes nothing that is read.
        within: True where the folder itself is the output, and may be written.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path, Path], Any]
    own: Mapping[str, Sequence[Mutation | Node]]
    sealed: bool = False
    within: bool = False


class Outcome(NamedTuple):
    """What became of one seed.

    Attributes:
        target: Name of the target.
        seed: A number, or the name of a case made by hand.
        kind: read, refused, or a failure: traceback, hang, crash, memory, outside,
            unpickled, "not finite", altered, "sound refused", terminal.
        seconds: Wall time.
        peak: Bytes of memory beyond those held before.
        damage: What was done to the input.
        words: The message or the traceback.
    """

    target: str
    seed: int | str
    kind: str
    seconds: float = 0.0
    peak: int = 0
    damage: tuple[str, ...] = ()
    words: str = ""

    @property
    def failed(self) -> bool:
        """True unless it was read or refused."""
        return self.kind not in ("read", "refused")


class _Server:
    """The process that reads: targets, their sound inputs and what those hold."""

    def __init__(self, targets: str, work: Path) -> None:
        module = importlib.import_module(targets)
        known = (*module.TARGETS, *getattr(module, "NIGHTLY", ()))
        self.targets: dict[str, Target] = {target.name: target for target in known}
        self.cases: Mapping[str, Any] = getattr(module, "CASES", {})
        self.work = work
        self.outside = watch.Outside()
        self.sound: dict[str, str] = {}

    def prepare(self, name: str) -> None:
        """Makes and reads the sound input of a target, with all its imports."""
        if name in self.sound:
            return
        target, place = self.targets[name], self.work / "sound" / name
        watch.unlimit_memory()
        if not place.exists():
            target.make(_made(place))
        copy = _made(self.work / "first" / name)
        with self._copied(target, copy), watch.captured():
            self.sound[name] = watch.digest(target.read(copy / "in", copy / "out"))
        watch.limit_memory()

    @contextlib.contextmanager
    def _copied(self, target: Target, place: Path) -> Iterator[None]:
        sound = self.work / "sound" / target.name
        shutil.copytree(sound, place / "in", symlinks=True)
        try:
            yield
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def attempt(self, name: str, seed: int | str) -> Outcome:
        """Damages a copy of the sound input, reads it and watches."""
        target = self.targets[name]
        place = _made(self.work / name / str(seed))
        with self._copied(target, place):
            done = [str(seed)]
            (self.work / DAMAGE).write_text(str(seed))
            if isinstance(seed, str):
                case = self.cases[seed]
                target = target._replace(sealed=target.sealed or case.same)
                case.change(place / "in")
            else:
                done = damage(place / "in", target.own, Random(f"{name} {seed}"))
            (self.work / DAMAGE).write_text("\n".join(done))
            before, held = watch.snapshot(place), watch.reset_peak()
            start = time.perf_counter()
            with watch.placed(self.outside, place), watch.captured() as printed:
                kind, words = self._read(target, place, bool(done))
            seconds = time.perf_counter() - start
            peak = max(0, watch.peak() - held)
            left = _left(target, before, watch.snapshot(place), self.outside.found)
            kind, words = left or (kind, words)
            if peak > watch.MEMORY:
                kind = "memory"
            if kind in ("read", "refused") and watch.unsafe(printed.getvalue()):
                kind, words = "terminal", watch.unsafe(printed.getvalue())
        return Outcome(name, seed, kind, seconds, peak, tuple(done), words)

    def _read(self, target: Target, place: Path, damaged: bool) -> tuple[str, str]:
        from eegkd.errors import InputError

        try:
            found = target.read(place / "in", place / "out")
        except (InputError, Refused) as error:
            if watch.ran_out(error):
                return "memory", _root(error)
            return "refused" if damaged else "sound refused", str(error)
        except BaseException as error:
            return "memory" if watch.ran_out(error) else "traceback", _root(error)
        if watch.not_finite(found):
            return "not finite", "what was read holds NaN or infinite numbers"
        if target.sealed and watch.digest(found) != self.sound[target.name]:
            return "altered", "what was read is not what was sealed"
        return "read", ""


def _made(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _left(
    target: Target, before: Mapping, after: Mapping, outside: Sequence[str]
) -> tuple[str, str] | None:
    """Returns what was written where nothing may be."""
    changed = [n for n in {**before, **after} if before.get(n) != after.get(n)]
    if any(name.endswith(PLANTED) for name in changed):
        return "unpickled", "a pickle was loaded"
    if outside:
        return "outside", "; ".join(outside[:5])
    if changed and not target.within:
        return "outside", f"changed: {', '.join(sorted(changed)[:5])}"
    return None


def _root(error: BaseException) -> str:
    """Formats the first of the errors that led to one, and that one's own words."""
    first = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
    lines = traceback.format_exception(first, chain=False)
    ends = [] if first is error else traceback.format_exception_only(error)
    return "\n".join([last_lines("".join(lines)), *ends]).strip()


def last_lines(text: str, count: int = 14) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def serve(link: Connection, targets: str, work: Path) -> None:
    """Answers questions: (target, None) makes it ready, (target, seed) reads it."""
    os.setpgid(0, 0)
    with (work / STACK).open("w") as stack:
        faulthandler.register(signal.SIGUSR1, file=stack)
        server = _Server(targets, work)
        with contextlib.suppress(EOFError):
            while True:
                name, seed = link.recv()
                if seed is None:
                    try:
                        server.prepare(name)
                        link.send("")
                    except BaseException:
                        link.send(traceback.format_exc())
                else:
                    link.send(server.attempt(name, seed))
