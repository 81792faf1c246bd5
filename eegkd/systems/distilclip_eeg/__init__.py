"""DistilCLIP-EEG: windows aligned with class texts, distilled into a small tower."""

from eegkd.systems.distilclip_eeg.system import make_system

__all__ = ["make_system"]
