"""What a run says and checks where its student sees fewer channels than its teacher."""

from collections.abc import Mapping

from eegkd.data.store import WindowStore
from eegkd.errors import InputError
from eegkd.systems import System, SystemConfig
from eegkd.systems.channels import student_columns


def check_columns(config: SystemConfig, systems: Mapping[str, System]) -> None:
    """Refuses systems whose student does not see what the options say.

    Raises:
        InputError: If there is one, or the data have no such channels.
    """
    columns = student_columns(config)
    for system in systems.values():
        if system.columns != columns:
            raise InputError(
                f"--student_channels: the system {system.name} does not take it: its "
                "make_system has to build the student for student_signal(config), and "
                "to use see_channels (eegkd/systems/channels.py)."
            )


def channel_notes(config: SystemConfig, store: WindowStore) -> tuple[str, ...]:
    """Says who sees what, and what a recording of the student's channels lacks."""
    if not config.student_channels:
        return ()
    names = ", ".join(config.signal.channels[i] for i in student_columns(config))
    notes = [
        f"The student and all models beside it see {names}; the teacher sees all "
        f"{config.signal.n_chans} channels."
    ]
    if needs_all(store.manifest["preprocessing"]):
        notes.append(
            "Windows are referenced to the average of all channels, so that the student"
            " cannot be used on a recording of its own channels alone: prepare with "
            "--data.montage referential for one that can."
        )
    return tuple(notes)


def needs_all(preprocessing: Mapping[str, object]) -> bool:
    """Whether a channel's windows are made of other channels too."""
    return preprocessing.get("montage") == "average"
