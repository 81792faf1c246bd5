"""One person, and one recording, under one name."""

from eegkd.data.bids.layout import Dataset
from eegkd.data.folders.copies import equal_recordings
from eegkd.data.folders.names import alike, person_key
from eegkd.data.folders.people import quoted
from eegkd.errors import InputError


def check_people(dataset: Dataset) -> tuple[str, ...]:
    """Refuses one person, or one person's samples, under two names.

    Names of people that differ in case or in leading zeros alone are taken for one
    person's.

    Returns:
        What to tell the user of a person's recordings with equal samples.

    Raises:
        InputError: Naming both.
    """
    files = [file for parts in dataset.recordings for file in parts]
    people = {file.path: f"sub-{file.entities['sub']}" for file in files}
    groups = alike(people.values(), person_key)
    if groups:
        raise InputError(
            f"{dataset.root}: {' and '.join(groups[0])} may be one person, who must "
            "not be on both sides of a fold. Rename one of them, or leave one out with "
            "--data.entities or .bidsignore."
        )
    folders = sorted({path.parent for path in people})
    others = [p for folder in folders for p in folder.iterdir() if p not in people]
    notes = []
    for same in equal_recordings(list(people), others):
        names = [path.relative_to(dataset.root).as_posix() for path in same]
        if len({people[path] for path in same}) > 1:
            raise InputError(
                f"{dataset.root}: {quoted(names)} hold the same samples under the "
                "names of different people: copies would be trained and tested "
                "on. Name all but one of them in .bidsignore."
            )
        notes.append(
            f"{quoted(names)} hold the same samples: they count {len(names)} times."
        )
    return tuple(notes)
