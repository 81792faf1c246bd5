"""The rows of a results table: their names, order and purpose."""

from collections.abc import Iterable

MODELS = {
    "teacher": "the large model itself: head room",
    "student": "the distilled model; its verdict is the registered comparison",
    "no_teacher": "the same student on hard labels: what the teacher adds",
    "a_a": "no_teacher with other seeds, against no_teacher: nothing to be found",
    "alpha_0": "the teacher's start and class vectors, no distillation loss",
    "shuffled_teacher": "teacher outputs permuted over the samples: should hurt",
    "within_class_shuffle": "teacher outputs permuted within a class",
    "class_mean_teacher": "teacher outputs replaced by the class mean",
    "random_class_vectors": "random vectors in place of text: what language adds",
    "small_net": "a tuned small network: is distillation needed at all",
    "linear": "band power and a linear classifier: the floor",
}
"""Rows in order, with their purpose; a run's variants follow."""

A_A = "a_a"
"""The negative control: another run of the recipe of `A_A_OF`."""
A_A_OF = "no_teacher"
TEACHER, STUDENT = "teacher", "student"

REGISTERED = ("no_teacher", "alpha_0")
"""Rows that the student must all beat for "distillation helps", by default."""

STUDENT_SHAPED = (
    *(STUDENT, A_A_OF, A_A, "alpha_0", "shuffled_teacher", "within_class_shuffle"),
    *("class_mean_teacher", "random_class_vectors"),
)
"""Rows whose models are built as the student is, and differ in what they are taught."""

SHOWN = ("teacher", "student", "no_teacher")
"""Rows shown in detail: training, calibration, embeddings."""


def in_order(names: Iterable[str]) -> list[str]:
    """Sorts rows as a table shows them: known ones first, others as they come."""
    names = list(names)
    known = [name for name in MODELS if name in names]
    return known + [name for name in names if name not in MODELS]
