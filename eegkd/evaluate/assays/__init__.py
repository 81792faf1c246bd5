"""Assays of a finished run, one per file, in the order of the report."""

from eegkd.evaluate.assays import (
    agreement,
    calibration,
    confusion,
    curves,
    events,
    identity,
    inside,
    labels,
    speed,
    verdict,
)

ASSAYS = (
    verdict.ASSAY,
    speed.ASSAY,
    curves.ASSAY,
    labels.ASSAY,
    confusion.ASSAY,
    calibration.ASSAY,
    agreement.ASSAY,
    identity.ASSAY,
    inside.ASSAY,
    events.ASSAY,
)
