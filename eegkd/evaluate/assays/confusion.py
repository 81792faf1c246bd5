"""Confusion matrices of the shown rows."""

from eegkd.evaluate.assays.labels import decided
from eegkd.evaluate.evidence import Assay, Evidence, of_classes, of_labels
from eegkd.evaluate.metrics import confusion_matrix
from eegkd.evaluate.multilabel import cell_confusion
from eegkd.evaluate.predictions import Predictions, concatenate
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.parts import Html, figure, section
from eegkd.evaluate.rows import SHOWN


def shown(evidence: Evidence) -> dict[str, Predictions]:
    """Returns the test predictions of the shown rows' first seed, all folds."""
    test = evidence.test
    return {name: concatenate(list(test[name][0])) for name in SHOWN if name in test}


def _section(result: None, evidence: Evidence) -> Html:
    del result
    if of_labels(evidence):
        return _of_labels(evidence)
    counts = {
        name: confusion_matrix(predictions)
        for name, predictions in shown(evidence).items()
    }
    if not counts:
        return ""
    svg = figures.confusion_svg(counts, evidence.store.classes)
    caption = "Share of the true class, and windows."
    return section("Confusion", figure(svg, caption))


def _of_labels(evidence: Evidence) -> Html:
    test, val = evidence.test, evidence.val
    counts = {
        name: cell_confusion(decided(test[name][0], val[name][0])[0])
        for name in SHOWN
        if name in test
    }
    if not counts:
        return ""
    svg = figures.cells_svg(counts, evidence.store.classes)
    caption = (
        "By class: rows are windows that have it or not, columns the decisions, as "
        "share of the row and in windows."
    )
    return section("Confusion", figure(svg, caption))


ASSAY = Assay(
    name="confusion", applies=of_classes, run=lambda evidence: None, section=_section
)
