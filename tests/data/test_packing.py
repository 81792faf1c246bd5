import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegkd.data.language.packing import (
    IGNORED,
    TEXT,
    TextPart,
    VisualPart,
    count_positions,
    pack_row,
    pack_rows,
    split_at_images,
)
from eegkd.errors import InputError

ROW = [
    TextPart([5, 6]),
    VisualPart(3),
    TextPart([7]),
    VisualPart(2),
    TextPart([8]),
    TextPart([9, 2], True),
]


def test_a_row_by_hand():
    packed = pack_row(ROW, length=13, pad_id=1)
    want = {
        "ids": [5, 6, 1, 1, 1, 7, 1, 1, 8, 9, 2, 1, 1],
        "visual_at": [-1, -1, 0, 1, 2, -1, 3, 4, -1, -1, -1, -1, -1],
        "mask": [1] * 11 + [0] * 2,
        "positions": [*range(11), 0, 0],
        "labels": [IGNORED] * 9 + [9, 2] + [IGNORED] * 2,
    }
    assert packed.keys() == want.keys()
    for name, values in want.items():
        np.testing.assert_array_equal(packed[name], values, err_msg=name)
    left = pack_row(ROW, length=13, pad_id=1, side="left")
    for name, values in want.items():
        moved = np.roll(values, 2)
        np.testing.assert_array_equal(left[name], moved, err_msg=name)
    assert TEXT == -1


parts = st.one_of(
    st.builds(TextPart, st.lists(st.integers(1, 99), max_size=4), st.booleans()),
    st.builds(VisualPart, st.integers(0, 4)),
)


rows_ = st.lists(parts, max_size=6).filter(count_positions)


@given(st.lists(rows_, min_size=1, max_size=3))
def test_nothing_is_lost_at_either_side(rows):
    for side in ("left", "right"):
        packed = pack_rows(rows, side=side)
        for i, row in enumerate(rows):
            mask = packed["mask"][i]
            num = count_positions(row)
            assert mask.sum() == num
            assert (
                mask[:num].all() if side == "right" else mask[len(mask) - num :].all()
            )
            texts = [part for part in row if isinstance(part, TextPart)]
            visual = packed["visual_at"][i][mask] != TEXT
            ids = packed["ids"][i][mask][~visual]
            assert list(ids) == [x for part in texts for x in part.ids]
            labels = packed["labels"][i]
            learned = [x for part in texts if part.learned for x in part.ids]
            assert list(labels[labels != IGNORED]) == learned
            assert (labels[mask][visual] == IGNORED).all()
            assert (labels[~mask] == IGNORED).all()
            order = packed["visual_at"][i][mask][visual]
            np.testing.assert_array_equal(order, np.arange(visual.sum()))
            np.testing.assert_array_equal(packed["positions"][i][mask], np.arange(num))


def test_placeholders_become_parts():
    ids, learned = [1, 0, 0, 4, 0, 6, 7], [0, 0, 0, 0, 0, 0, 1]
    split = split_at_images(ids, image_id=0, counts=(2, 3, 1), learned=learned)
    assert split == [
        TextPart([1]),
        VisualPart(5),
        TextPart([4]),
        VisualPart(1),
        TextPart([6]),
        TextPart([7], learned=True),
    ]
    # One a visual token, as the processors of transformers write them.
    expanded = [1, *[0] * 5, 4, 0, 6, 7]
    again = split_at_images(
        expanded, image_id=0, counts=(2, 3, 1), learned=[0] * 9 + [1]
    )
    assert again == split
    assert split_at_images([3, 4], image_id=0, counts=()) == [TextPart([3, 4])]
    with pytest.raises(InputError, match="scan 12: 3 image placeholders"):
        split_at_images(ids, image_id=0, counts=(2, 3), name="scan 12")


def test_long_rows_are_refused_by_name():
    with pytest.raises(InputError, match=r"row 1: 11 tokens \(5 visual, 6 of text\)"):
        pack_rows([ROW[:2], ROW], length=10)
    with pytest.raises(InputError, match="scan 3: 11 tokens"):
        pack_rows({"scan 3": ROW}, length=10)


def test_nothing_is_not_packed():
    with pytest.raises(InputError, match="there are no rows. Give one row or more"):
        pack_rows([])
    with pytest.raises(InputError, match="Nothing to pack in page 2, page 3"):
        pack_rows({"page 1": ROW, "page 2": [], "page 3": [TextPart([])]})
    with pytest.raises(InputError, match="pad_id=-100 is no token: take one"):
        pack_rows([ROW], pad_id=-100)


def test_a_text_of_nothing_has_no_parts():
    assert split_at_images([], image_id=9, counts=[]) == []


def test_placeholders_left_in_a_text_are_refused_by_name():
    with pytest.raises(InputError, match=r"page 7: token -200 is no text"):
        pack_row([TextPart([1, -200])], length=4, name="page 7")
