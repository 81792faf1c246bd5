"""Two audits of the report: agreement with the teacher, and what tells people apart."""

from html import escape

from eegkd.evaluate.report_content import MODELS, ReportContent
from eegkd.evaluate.report_html import number, table

AGREEMENT_NOTE = (
    "On test windows, labels unread: the share with the teacher's most probable class, "
    "KL(teacher || model) in nats, and the share within each class the teacher names. "
    "A model can agree more and be no better."
)
IDENTITY_NOTE = (
    "Balanced accuracy of a linear probe that names the test subject from the "
    "embedding, fitted on the first half of each recording and judged on the second; "
    "people the model never saw. Well above chance, the embedding holds who it is (or "
    "the day, or the electrodes' fit)."
)


def audit_section(content: ReportContent) -> str:
    """Returns both tables; each is left out where nothing was measured."""
    return _agreement(content) + _identity(content)


def _agreement(content: ReportContent) -> str:
    if not content.agreement:
        return ""
    names = [name for name in MODELS if name in content.agreement]
    names += [name for name in content.agreement if name not in MODELS]
    body = []
    for name in names:
        row = content.agreement[name]
        shares = [number(x, 2) for x in row["by_class"]]
        cells = (escape(name), number(row["top1"]), number(row["kl"]), *shares)
        body.append(("student" if name == "student" else "", cells))
    classes = [escape(name) for name in content.class_names]
    head = ("model", "same class", "KL", *classes)
    return (
        f"<h2>Agreement with the teacher</h2>{table(head, body)}"
        f'<p class="note">{escape(AGREEMENT_NOTE)}</p>'
    )


def _identity(content: ReportContent) -> str:
    if not content.identity:
        return ""
    body = [
        ("", (escape(k), number(v.accuracy), number(v.chance), str(v.n_subjects)))
        for k, v in content.identity.items()
    ]
    head = ("embedding", "subject named", "chance", "subjects")
    return (
        f"<h2>Who it is</h2>{table(head, body)}"
        f'<p class="note">{escape(IDENTITY_NOTE)}</p>'
    )
