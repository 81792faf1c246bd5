"""What a report shows of the inside of models: ranks, errors, weights of layers."""

from collections.abc import Mapping, Sequence
from html import escape

from eegkd.evaluate.measured import WEIGHT, Measured, Routing
from eegkd.evaluate.report_content import MODELS, ReportContent
from eegkd.evaluate.report_html import metric_words, number, table
from eegkd.evaluate.routing_plot import routing_svg

MOST_ROUTERS = 4
MEASURED_NOTE = (
    "On some test windows, means over trainings. Ranks are effective ranks: how many "
    "directions the tokens span, before and after a compression, and those of what "
    "they were to mimic. A band error is the relative error of that band's power, "
    "student against what it was to mimic; a token's features have no order in time, "
    "so bands are of a learned ordering, and rows that mimic different layers are no "
    "match."
)
ROUTING_NOTE = (
    "Above, the mean weight of each layer of the teacher on test windows of each "
    "class. Below, on training (dashed) and validation subjects (whole) while it was "
    "trained. The layers are what the teacher makes of windows it was tuned on, or of "
    "new people's."
)


def measured_section(content: ReportContent) -> str:
    """Returns a table and a figure; each is left out where nothing was measured."""
    return _table(content.measured) + _routing(content.routing, content.class_names)


def _in_order(names: Sequence[str]) -> list[str]:
    known = [name for name in MODELS if name in names]
    return known + [name for name in names if name not in MODELS]


def _table(measured: Mapping[str, Mapping[str, Measured]]) -> str:
    names = dict.fromkeys(
        name for own in measured.values() for name in own if not name.startswith(WEIGHT)
    )
    if not names:
        return ""
    body = []
    for model in _in_order(list(measured)):
        own = measured[model]
        cells = [number(own[n].mean if n in own else None) for n in names]
        body.append(("student" if model == "student" else "", (escape(model), *cells)))
    head = ("model", *(metric_words(name) for name in names))
    return (
        f"<h2>Measured inside</h2>{table(head, body)}"
        f'<p class="note">{escape(MEASURED_NOTE)}</p>'
    )


def _routing(routing: Mapping[str, Routing], class_names: Sequence[str]) -> str:
    if not routing:
        return ""
    # The student first; controls whose teacher was changed tell nothing here.
    names = [n for n in _in_order(list(routing)) if n == "student" or n not in MODELS]
    shown = {name: routing[name] for name in names[:MOST_ROUTERS]}
    if not shown:
        return ""
    svg = routing_svg(shown, class_names)
    return (
        f"<h2>Weights of the teacher's layers</h2><figure>{svg}"
        f"<figcaption>{escape(ROUTING_NOTE)}</figcaption></figure>"
    )
