"""What the torture test sees of a run, without the numerics: two trainings of sums.

    python -m tests.support.fake_run FAULT distill SYSTEM ... --out OUT
    python -m tests.support.fake_run FAULT distill --resume OUT

Each step adds its number to a sum. FAULT is "none", or what is wrong with it: "forgets"
starts again at the saved step with one step too few in the sum, "stays" leaves a file
behind, "fails" ends with code 3 when it is resumed.
"""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

STEPS, STEP_S, SAVE_EVERY = 40, 0.004, 4
STOP = []


def save(folder, step, total):
    part = folder / f".writing-{step:08d}"
    part.mkdir(parents=True, exist_ok=True)
    (part / "total").write_text(str(total))
    part.rename(folder / f"{step:08d}")


def train(run, model, fault):
    place = run / "fold0" / model
    checkpoints = place / "checkpoints"
    if (place / "done.json").exists():
        clear(checkpoints)
        return
    saved = sorted(checkpoints.glob("[0-9]*"))
    step = int(saved[-1].name) if saved else 0
    total = int((saved[-1] / "total").read_text()) if saved else 0
    if saved and fault == "forgets":
        total -= step
    with (run / "metrics.jsonl").open("a") as log:
        while step < STEPS:
            time.sleep(STEP_S)
            step, total = step + 1, total + step + 1
            if step % SAVE_EVERY == 0:
                where = {"fold": 0, "model": model, "seed": 0, "step": step}
                log.write(json.dumps(where | {"total": total}) + "\n")
                log.flush()
                save(checkpoints, step, total)
            if STOP:
                sys.exit(130)
    (place / "model.safetensors").write_text(str(total))
    if fault == "stays":
        (place / ".model.part").touch()
    (place / "done.json").write_text("{}")
    clear(checkpoints)


def clear(folder):
    shutil.rmtree(folder, ignore_errors=True)


def main(fault, *args):
    signal.signal(signal.SIGTERM, lambda *_: STOP.append(1))
    run = Path(args[-1])
    config = run / "config.json"
    if config.exists() and fault == "fails":
        sys.exit(3)
    run.mkdir(parents=True, exist_ok=True)
    config.write_text("{}")
    for left in run.rglob(".writing-*"):
        clear(left)
    for model in ("teacher", "student"):
        train(run, model, fault)
    for name in ("results.json", "splits.json"):
        (run / name).write_text("[]")


if __name__ == "__main__":
    main(*sys.argv[1:])
