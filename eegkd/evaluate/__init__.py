"""Judging models: metrics, statistics, calibration, events, baselines, reports.

`assays` and `report`, which load matplotlib, are imported from their own folders.
"""

from eegkd.evaluate.baselines import band_power, linear_baseline
from eegkd.evaluate.calibration import (
    apply_temperature,
    calibration_scores,
    fit_temperature,
    reliability,
    to_logits,
)
from eegkd.evaluate.efficiency import latency, throughput
from eegkd.evaluate.events import (
    Detection,
    EventsConfig,
    WindowTrack,
    detect,
    fit_threshold,
    operating_curve,
    szcore_results,
    window_tracks,
)
from eegkd.evaluate.evidence import Assay, Evidence
from eegkd.evaluate.metrics import METRICS, confusion_matrix, per_subject, score
from eegkd.evaluate.predictions import (
    Predictions,
    concatenate,
    load_predictions,
    make_predictions,
    save_predictions,
    with_units,
)
from eegkd.evaluate.scoring import detection_latency, score_events, score_samples
from eegkd.evaluate.statistics import (
    Comparison,
    Summary,
    holm,
    minimum_detectable_effect,
    paired_comparison,
    result_rows,
    summarise,
)
from eegkd.evaluate.szcore import read_szcore_tsv, write_szcore_tsv
from eegkd.evaluate.tasks import Task, task_of

__all__ = [
    "METRICS",
    "Assay",
    "Comparison",
    "Detection",
    "EventsConfig",
    "Evidence",
    "Predictions",
    "Summary",
    "Task",
    "WindowTrack",
    "apply_temperature",
    "band_power",
    "calibration_scores",
    "concatenate",
    "confusion_matrix",
    "detect",
    "detection_latency",
    "fit_temperature",
    "fit_threshold",
    "holm",
    "latency",
    "linear_baseline",
    "load_predictions",
    "make_predictions",
    "minimum_detectable_effect",
    "operating_curve",
    "paired_comparison",
    "per_subject",
    "read_szcore_tsv",
    "reliability",
    "result_rows",
    "save_predictions",
    "score",
    "score_events",
    "score_samples",
    "summarise",
    "szcore_results",
    "task_of",
    "throughput",
    "to_logits",
    "window_tracks",
    "with_units",
    "write_szcore_tsv",
]
