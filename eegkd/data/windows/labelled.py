"""What the labels of a store lack, for those who prepare it."""

from collections.abc import Iterator

from eegkd.data.windows.store import WindowStore


def classes_without_windows(store: WindowStore) -> Iterator[str]:
    """Yields a sentence for each class that no window has, and why it has none."""
    counts, manifest = store.manifest["counts"]["classes"], store.manifest
    share = manifest["preprocessing"].get("positive_fraction", 0.5)
    least = share * manifest["window_s"]
    longest: dict[str, float] = {}
    for record in manifest["recordings"].values():
        for event in record.get("events", ()):
            name = event["label"]
            longest[name] = max(longest.get(name, 0.0), event["duration_s"])
    for name, count in counts.items():
        if count:
            continue
        yield f"No window has the class {name!r}" + (
            f": its longest stretch is {longest[name]:g} s, and a window of "
            f"{manifest['window_s']:g} s needs {least:g} s of it. Lower "
            "--data.window_s or --data.positive_fraction, or leave the class out."
            if longest.get(name, least) < least
            else ". Other labels or bad stretches cover it: mend them, or leave the "
            "class out."
        )
