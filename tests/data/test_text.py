import numpy as np
import pytest

from eegkd.data.language import class_texts as text
from eegkd.errors import InputError

CLASSES = tuple(text.MORPHOLOGY)
# What a reader could take for the class: its name, its stem, its common abbreviation.
FORBIDDEN = ("seizure", "ictal", "background", "bckg", "focal", "fnsz", "gnsz",
             "generali", "rest", "resting", "task", "arithmetic", "sz")  # fmt: skip


@pytest.mark.parametrize("handcrafted", [False, True])
def test_templates_hold_no_class_name_and_five_or_more_a_class(handcrafted):
    texts = text.class_texts(CLASSES, handcrafted=handcrafted)
    assert all(len(set(group)) >= 5 for group in texts)
    assert text.label_words(texts, CLASSES) == []
    words = " ".join(t for group in texts for t in group).lower().split()
    assert not [w for w in words if w.strip(".,:").startswith(FORBIDDEN)]


def test_label_words_finds_a_planted_name():
    assert text.label_words([["a Seizure begins"], ["x"]], ("seizure", "S")) == [
        "seizure"
    ]
    assert text.label_words([["set S"], ["s"]], ("S",)) == ["S"]


def test_tokenize_covers_every_word_and_marks_padding():
    texts = text.class_texts(("background", "seizure"))
    vocabulary = text.build_vocabulary(texts)
    ids, mask, counts = text.tokenize(texts, vocabulary, max_length=64)
    assert ids.shape == mask.shape
    assert ids.shape[:2] == (2, 5)
    assert list(counts) == [5, 5]
    assert np.all(ids[..., 0] == vocabulary["[CLS]"])
    assert not np.any(ids == vocabulary["[UNK]"])
    assert np.all((ids == vocabulary["[PAD]"]) == ~mask)


def test_unknown_class_says_what_to_do():
    with pytest.raises(InputError, match=r"sleep.*--text.source file"):
        text.class_texts(("sleep", "rest"))


def test_reports_are_read_from_csv(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text("label,text\nrest,quiet waves\ntask,\ntask,fast waves\n")
    assert text.read_texts(path, ("rest", "task")) == (
        ("quiet waves",),
        ("fast waves",),
    )
    with pytest.raises(InputError, match="unknown labels"):
        text.read_texts(path, ("rest",))
    with pytest.raises(InputError, match=r"no text for the classes \['sleep'\]"):
        text.read_texts(path, ("rest", "task", "sleep"))
    with pytest.raises(InputError, match="no such file"):
        text.read_texts(tmp_path / "none.csv", ("rest",))
