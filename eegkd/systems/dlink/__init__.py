"""DLink: a foundation model distilled into a student for small devices."""

from eegkd.systems.dlink.system import make_system

__all__ = ["make_system"]
