"""Channel names: one canonical form, and the kind of signal a name stands for.

Electrodes are written as in the modern 10-20 system (T7 T8 P7 P8 for T3 T4 T5 T6),
bipolar pairs as "F3-C3", ECG leads as "I", "aVR", "V1".
"""

import re
from collections.abc import Sequence

from eegkd.data.recordings.recording import Kind

_OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_ELECTRODE = re.compile(
    r"(NFP|AFP|AFF|AF|FP|FFC|FFT|FCC|FTT|FT|FC|F|CCP|CPP|CP|C|TTP|TPP|TP|T|"
    r"PPO|POO|PO|P|OI|O|I|A|M|NZ)(Z|\d{1,2}H?)"
)
_TYPE_PREFIX = re.compile(r"(EEG[ _:]+)+(?=\S*[A-Z])", re.IGNORECASE)
_COMMON_REFERENCE = re.compile(
    r"(?<=\S)([-_ ](REF|LE|AR|AVG|AV|AA|CAR|CS2|ORG|A1A2|A1\+A2))+$", re.IGNORECASE
)
_LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "MLI", "MLII", "MLIII")
_CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6", "V", "Vx", "Vy", "Vz")
_LEADS = {name.upper(): name for name in _LIMB_LEADS + _CHEST_LEADS}
_NO_EEG = (
    # Numbers that no electrode gives, and what synchronises devices.
    r"^(POL\b|DC ?\d|DC$|STATUS|STI\b|STIM|TRIG|MARK|EVENT|BUTTON|PHOTIC|PHOTO\b|FLASH|"
    r"STROBE|BURSTS|SUPPR|EXG|ERG|VNS|BATT(ERY)?\b|IMP(EDANCE)?\b|GSR|EDA\b|SC[LR]\b|"
    # Breath, its gases and its sounds.
    r"RESP|AIR ?FLOW|[XP]?FLOW|NASAL|ORO|CANNULA|THERM|THOR?\b|THOR|ABD\b|ABDO|BELT|"
    r"CHEST\b|EFFORT|RIP\b|CPAP|BIPAP|PRESS|LEAK|TIDAL|PNEUMO|SNOR|MIC(RO|\b)|SOUND|"
    r"AUDIO|PHONO|(ET|TC|TCP|P|EX|S[PA]|PA)?CO2\b|CAPNO|"
    # Blood, heart and skin.
    r"PLETH|PPG|SP?O2|SAO2|OSAT|OXI|PULSE?\b|PULSE|PR\b|HR\b|HRATE|HEART|IBI|RATE|"
    r"ABP|[NI]?IBP|[CI]VP\b|ICP\b|ART\b|TEMP(ERATURE)?\b|"
    # Legs, movement and posture.
    r"([LR]|LEFT|RIGHT)?[ _./-]?LEGS?([ _./-]?([LR]|LEFT|RIGHT))?\d?\b|[LR](AT|TA)\b|"
    r"TIBIA|PLM\b|POS(ITION)?\b|BODY|GRAVITY|ACTIVITY|ACTIGR|MOVEMENT|MOTION|LIGHT|"
    r"LUX\b|ACC(EL\w*|[ _]?[XYZ])?$|GYRO|[-.]+\d*$|$)"
)
"""Beginnings of names of other signals; legs too, whatever their amplitude."""
_KIND_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("ecg", re.compile(r"\b(ECG|EKG|aVR|aVL|aVF|MLII)", re.IGNORECASE)),
    ("eog", re.compile(r"\b(EOG|LOC|ROC|[HV]EO[LRUDG]?\b)", re.IGNORECASE)),
    ("emg", re.compile(r"\b(EMG|CHIN|MASSETER|SUBMENT)", re.IGNORECASE)),
    ("misc", re.compile(_NO_EEG, re.IGNORECASE)),
)


def _electrode(name: str) -> str | None:
    """Returns the canonical name of one electrode, or None if it is none."""
    upper = name.strip(" .").upper()
    if upper in ("NZ", "IZ"):
        return upper.capitalize()
    match = _ELECTRODE.fullmatch(upper)
    if match is None:
        return None
    stem, number = match.groups()
    if len(stem) > 1 and stem.endswith("FP"):
        stem = stem[:-1] + "p"
    name = stem + number.replace("Z", "z").replace("H", "h")
    return _OLD_NAMES.get(name, name)


def is_electrode(name: str) -> bool:
    """Checks whether a canonical name is one scalp (or ear) electrode."""
    return _electrode(name) is not None


def split_pair(name: str) -> tuple[str, str] | None:
    """Returns the two electrodes of a canonical bipolar name, else None."""
    parts = name.split("-")
    if len(parts) != 2:
        return None
    first, second = (_electrode(part) for part in parts)
    return None if first is None or second is None else (first, second)


def canonical_name(name: str) -> str:
    """Returns the canonical form of one channel name.

    "EEG Fp1-Ref", "FP1", "Fp1." -> "Fp1"; "T3" -> "T7"; "EEG T5-O1" -> "P7-O1";
    "ECG ECG" -> "ECG"; names that follow no known scheme keep their own words.
    """
    words = " ".join(name.split())
    bare = _COMMON_REFERENCE.sub("", _TYPE_PREFIX.sub("", words))
    halves = bare.split(" ")
    if len(halves) == 2 and halves[0] == halves[1]:
        bare = halves[0]
    electrode = _electrode(bare)
    if electrode is not None:
        return electrode
    pair = split_pair(bare)
    if pair is not None:
        return "-".join(pair)
    return _LEADS.get(bare.upper(), bare)


def canonical_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns canonical names of all channels of a file.

    MNE numbers equal labels ("T8-P8-0", "T8-P8-1"): here the first keeps the plain
    name and the others their number.
    """
    numbered = [re.fullmatch(r"(.+)-(\d+)", name) for name in names]
    bases = [match.group(1) if match else None for match in numbered]
    out: list[str] = []
    for name, base in zip(names, bases, strict=True):
        is_copy = base is not None and bases.count(base) > 1
        plain = canonical_name(base if is_copy and base else name)
        candidate, copy = plain, 0
        while candidate in out:
            copy += 1
            candidate = f"{plain}-{copy}"
        out.append(candidate)
    return tuple(out)


def is_known(name: str) -> bool:
    """Checks whether a canonical name says what its signal is."""
    return (
        is_electrode(name)
        or split_pair(name) is not None
        or name in _LEADS.values()
        or name.upper().startswith("EEG")
        or any(pattern.search(name) for _, pattern in _KIND_PATTERNS)
    )


def channel_kinds(names: Sequence[str], defaults: Sequence[Kind]) -> tuple[Kind, ...]:
    """Returns the kind of each channel by its canonical name.

    Args:
        names: Canonical names of all channels of a file.
        defaults: Kinds by the file's reader, where the name gives none.
            V1 to V6 are ECG leads only with a limb lead, since depth electrodes
            carry such names too.
    """
    has_limb_lead = any(name in _LIMB_LEADS for name in names)
    leads = set(_LEADS.values()) if has_limb_lead else set()

    def kind(name: str, default: Kind) -> Kind:
        if name in leads:
            return "ecg"
        for found, pattern in _KIND_PATTERNS:
            if pattern.search(name):
                return found
        if is_electrode(name) or split_pair(name):
            return "eeg"
        return default

    pairs = zip(names, defaults, strict=True)
    return tuple(kind(name, default) for name, default in pairs)
