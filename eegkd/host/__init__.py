"""Files that are whole, signals and this process: standard library and NumPy."""

from eegkd.host.atomic import open_atomic, sole_writer, write_atomic
from eegkd.host.signals import watch_signals

__all__ = ["open_atomic", "sole_writer", "watch_signals", "write_atomic"]
