"""The command line: a verb, a function; nothing heavy is imported before it runs."""

import sys
from collections.abc import Callable, Sequence

VERBS = {
    "quickstart": "Train a teacher, distil a student, judge both, on built-in data.",
    "prepare": "Cut a corpus, or a folder of your own files, into a window store.",
    "distill": "Train teacher, student and controls on a corpus; or resume a run.",
    "evaluate": "Judge a finished run again and rewrite its report.",
    "predict": "Detect events in a recording with a run's student.",
    "export": "Write a run's student as StableHLO, ONNX and safetensors.",
    "bench": "Measure a training step: windows per second, and where the time goes.",
    "plan": "Print parameters, FLOPs and memory of a system or model; nothing runs.",
}

USAGE = "\n".join(
    [
        "usage: eegkd VERB [options]",
        "",
        "Distil large EEG models into small ones.",
        "",
        *(f"  {verb:<12}{text}" for verb, text in VERBS.items()),
        "",
        "Begin with `eegkd quickstart`; with recordings of your own by",
        "",
        "  eegkd prepare --data.corpus folder --data.root RECORDINGS --out STORE",
        "  eegkd distill distilclip_eeg --preset small --store STORE --out RUN",
        "",
        "`eegkd VERB --help` lists a verb's options, `eegkd distill SYSTEM --help`",
        "those of a system. `eegkd --version` prints the version.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 2 (bad input) or 130 (interrupted, resumable)."""
    from eegkd.errors import InputError, Interrupted
    from eegkd.host.signals import end_unread, terminable
    from eegkd.host.text import tolerate_output

    tolerate_output()
    args = list(sys.argv[1:] if argv is None else argv)
    if args in ([], ["-h"], ["--help"]):
        _say(USAGE)
        return 0
    if args == ["--version"]:
        from eegkd import __version__

        _say(__version__)
        return 0
    verb, *rest = args
    if verb not in VERBS:
        _complain(f"There is no verb {verb!r}: choose {', '.join(VERBS)}.")
        return 2
    try:
        with terminable(), end_unread():
            if verb == "predict":
                from eegkd.commands.look import look

                look(rest)
            _load(verb)(rest)
    except InputError as error:
        _complain(str(error))
        return 2
    except Interrupted as error:
        _complain(str(error))
        return 130
    except KeyboardInterrupt:
        _complain("Interrupted. The same command goes on where it was saved last.")
        return 130
    return 0


def _load(verb: str) -> Callable[[Sequence[str]], None]:
    import importlib

    return importlib.import_module(f"eegkd.commands.{verb}").main


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    from eegkd.host.text import visible

    sys.stderr.write(f"eegkd: {visible(text)}\n")


if __name__ == "__main__":
    sys.exit(main())
