"""The two ways a command ends early: bad input, and an interruption."""


class InputError(ValueError):
    """Bad input or configuration: exit code 2.

    The message is one or two sentences that name the file, the field and the cure.
    """


class Interrupted(RuntimeError):
    """Stopped by Ctrl-C or SIGTERM after saving: exit code 130, resumable."""
