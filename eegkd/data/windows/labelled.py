"""What the labels of a store lack, for those who prepare it."""

from collections.abc import Iterator

from eegkd.data.windows.store import WindowStore
from eegkd.errors import quoted


def classes_without_windows(store: WindowStore) -> Iterator[str]:
    """Yields sentences on the classes that no window has, and why they have none."""
    manifest = store.manifest
    share = manifest["preprocessing"].get("positive_fraction", 0.5)
    least = share * manifest["window_s"]
    longest: dict[str, float] = {}
    for record in manifest["recordings"].values():
        for event in record.get("events", ()):
            name = event["label"]
            longest[name] = max(longest.get(name, 0.0), event["duration_s"])
    lacking = [x for x, count in manifest["counts"]["classes"].items() if not count]
    short = [name for name in lacking if longest.get(name, least) < least]
    covered = [name for name in lacking if longest.get(name, least) >= least]
    if short:
        yield (
            f"No window has the class {quoted(short)}: the longest stretch is "
            f"{max(longest[name] for name in short):g} s, and a window of "
            f"{manifest['window_s']:g} s needs {least:g} s. Lower --data.window_s or "
            "--data.positive_fraction, or leave the class out."
        )
    if covered:
        yield (
            f"No window has the class {quoted(covered)}: other labels or bad stretches "
            "cover it. Mend them, or leave the class out."
        )
