"""Keep what three tiny runs come to, and compare it after a change that moves nothing.

    python -m experiments.golden --out before
    python -m experiments.golden --out after     # at another commit
    python -m experiments.golden --compare before/golden.json after/golden.json

Runs are started by the command line, with XLA's own flags and a compile cache that
begins empty. `golden.json` has their options, splits, tables, logged numbers, plans,
cache keys and names of files, and a hash of every array; no time, speed or path of this
machine. It holds for one machine and one set of packages.

    --out DIR                where runs and golden.json go; no case may be there yet
    --case NAME ...          distilclip_eeg, dlink, dlink_cached, plans; else all
    --compare A B            print what differs, and exit with 1 if anything does
    --announced PATTERN ...  paths that may differ, as `*/cache/*` (`*` is any text)
"""

import argparse
import fnmatch
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from safetensors.numpy import load_file

SHARED = "--num_seeds 2 --num_folds 2 --train.epochs 2 --optim.learning_rate 1e-3"
DLINK = f"""dlink --preset small {SHARED} --train.batch_size 16 --train.max_steps 8
    --teacher.head average --teacher.cbramod.filters 5 --teacher.cbramod.depth 2
    --teacher.cbramod.num_heads 2 --teacher.cbramod.ffn_dim 8 --student.mimic_hidden 4
    --student.compress_width 8 --student.norm_groups 2 --data.corpus folder
    --data.root OUT/recordings --data.window_s 2 --data.zscore none"""
CASES = {
    "distilclip_eeg": f"""distilclip_eeg --preset small {SHARED} --split fixed
        --data.corpus synthetic --data.world null --train.max_steps 24
        --eeg.dim 16 --eeg.depth 2
        --eeg.num_heads 2 --eeg.ffn_mult 1 --eeg.kernel 5 --eeg.stem_kernels 7 3
        --text.dim 16 --text.depth 1 --text.num_heads 2 --proj.dim 8 --student.depth 1
        --cache.folder OUT/cache""",
    "dlink": f"""{DLINK} --train.held_out 0.5
        --rows no_teacher shuffled_teacher class_mean_teacher small_net linear""",
    # The row alpha_0 takes no term whose weight is a schedule.
    "dlink_cached": f"""{DLINK} --student_channels C3 C4 --router.entropy_bonus 0
        --train.teacher cached --cache.form int8 --cache.folder OUT/cache""",
}
PLANS = (
    "distilclip_eeg --preset paper --chip H100 --devices 4 --windows 1000",
    "dlink --preset paper --chip v5p --windows 1000",
    "dlink --preset labram --devices 8 --runner mesh --fully_sharded",
    "clip-vit-large-patch14-336 --batch_size 8",
    "llava-1.5-7b --lora.rank 8 --devices 8 --fully_sharded --chip H100",
)
UNTOLD = ("seconds", "expected_s", "spent_s", "windows_per_s", "latency_ms", "versions")
ARRAYS = (".safetensors", "val.npz", "test.npz")


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns the exit code."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path)
    what.add_argument("--compare", type=Path, nargs=2)
    parser.add_argument("--case", nargs="+", choices=[*CASES, "plans"])
    parser.add_argument("--announced", nargs="+", default=[])
    asked = parser.parse_args(argv)
    cases = asked.case or [*CASES, "plans"]
    if asked.compare:
        return compare(asked.compare, ["machine", *cases], asked.announced)
    gather(asked.out.absolute(), cases)
    return 0


def gather(out: Path, cases: Sequence[str]) -> None:
    """Runs the cases one by one, and adds each to `golden.json`."""
    file = out / "golden.json"
    kept = _read(file) if file.is_file() else {}
    kept["machine"] = {"jaxlib": metadata.version("jaxlib"), "cores": os.cpu_count()}
    for case in cases:
        began = time.monotonic()
        if case == "plans":
            kept[case] = {plan: _plan(out, plan.split()) for plan in PLANS}
        else:
            kept[case] = _told(run_case(out, case), str(out))
        file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        print(f"{case}: {time.monotonic() - began:.0f} s", flush=True)


def run_case(out: Path, case: str) -> dict[str, Any]:
    """Trains and judges one case; returns all that is kept of it."""
    folder = out / case
    _write_recordings(folder / "recordings")
    run, options = folder / "run", CASES[case].replace("OUT", str(folder)).split()
    _eegkd(out, "distill", *options, "--out", str(run))
    files = {p.relative_to(run).as_posix(): p for p in run.rglob("*") if p.is_file()}
    caches = {p.parent.name: _read(p) for p in folder.glob("cache/*/manifest.json")}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    wanted = ("config", "splits", "results", "summary", "store/manifest")
    return {
        "plan": _plan(out, [*options, "--store", str(run / "store")]),
        "files": sorted(files),
        "cache": {m["fields"]["teacher"]: m | {"key": k} for k, m in caches.items()},
        **{name: _read(run / f"{name}.json") for name in wanted},
        "log": sorted(map(json.loads, lines), key=_order),
        "done": {k: _read(files[k]) for k in files if k.endswith("done.json")},
        "arrays": {k: hash_arrays(files[k]) for k in files if k.endswith(ARRAYS)},
    }


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    # Of small models, trained side by side, whose row comes first is chance.
    return row["fold"], row["model"], row["seed"], row["step"], json.dumps(row)


def hash_arrays(path: Path) -> dict[str, str]:
    """Hashes each array of a file, with its type and shape."""
    load = load_file if path.suffix == ".safetensors" else np.load
    return {
        name: hashlib.sha256(f"{a.dtype} {a.shape}".encode() + a.tobytes()).hexdigest()
        for name, a in load(path).items()
    }


def compare(files: Sequence[Path], cases: Sequence[str], known: Sequence[str]) -> int:
    """Prints every path whose values differ; returns 1 if one is not announced."""
    both = [{case: _read(f).get(case, f"not in {f}") for case in cases} for f in files]
    was, now = (dict(_flat(kept)) for kept in both)
    counts = {"DIFFERS": 0, "announced": 0}
    for path in dict.fromkeys([*was, *now]):
        before, after = was.get(path, "absent"), now.get(path, "absent")
        if before != after:
            told = any(fnmatch.fnmatchcase(path, pattern) for pattern in known)
            word = "announced" if told else "DIFFERS"
            counts[word] += 1
            print(f"{word} {path}\n  {before}\n  {after}")
    said = ", ".join(f"{number} {word}" for word, number in counts.items())
    print(f"{len(was)} values of {', '.join(cases)}: {said}.")
    return 1 if counts["DIFFERS"] else 0


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields each leaf of JSON by its path; an empty list or object is a leaf too."""
    items = enumerate(value) if isinstance(value, list) else ()
    items = value.items() if isinstance(value, Mapping) else items
    if not value or not items:
        yield path, json.dumps(value)
    else:
        for name, item in items:
            yield from _flat(item, f"{path}/{name}".lstrip("/"))


def _told(value: Any, out: str) -> Any:
    """Leaves out times, speeds and versions, and what `out` is called."""
    if isinstance(value, Mapping):
        return {k: _told(v, out) for k, v in value.items() if k not in UNTOLD}
    if isinstance(value, list):
        return [_told(item, out) for item in value]
    return value.replace(out, "OUT") if isinstance(value, str) else value


def _write_recordings(folder: Path) -> None:
    """Draws recordings of eight people: events have more power at 10 Hz in C3."""
    folder.mkdir(parents=True)
    rng, seconds = np.random.default_rng(0), np.arange(48 * 200) / 200
    text = "file,subject,onset,duration,label\n"
    about = {"fs": 200, "units": ["uV"] * 3, "sig_name": ["C3", "Cz", "C4"]}
    for name in [f"p{i}" for i in range(8)]:
        signal = 10 * rng.normal(size=(len(seconds), 3))
        signal[:, 0] += 10 * np.sin(20 * np.pi * seconds) * (seconds // 12 % 2)
        about |= {"p_signal": signal, "fmt": ["16"] * 3, "write_dir": str(folder)}
        wfdb.wrsamp(name, **about)
        text += f"{name}.hea,{name},12,12,seizure\n{name}.hea,{name},36,12,seizure\n"
    (folder / "labels.csv").write_text(text)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _plan(out: Path, options: Sequence[str]) -> Any:
    return json.loads(_eegkd(out, "plan", *options, "--json"))


def _eegkd(out: Path, *args: str) -> str:
    """Runs a command of eegkd to its end; returns what it printed."""
    out.mkdir(parents=True, exist_ok=True)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    own["JAX_COMPILATION_CACHE_DIR"] = str(out / "xla")
    command = [sys.executable, "-m", "eegkd.cli", *args]
    with (out / "log.txt").open("a") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=own)
        log.write(f"$ {shlex.join(command)}\n{done.stdout.decode()}\n")
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode} of {command}: see {log.name}")
    return done.stdout.decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
