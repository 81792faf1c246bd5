"""Masks of ones and zeros at every entry that takes a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.models import Bert, BertConfig, ClipText, ClipTextConfig, Decoder
from eegkd.ops.attention import dot_product_attention
from eegkd.ops.masks import boolean_mask
from tests.support.decoders import LLAMA

SIZES = {"dim": 4, "depth": 1, "num_heads": 1, "ffn_dim": 4, "vocab_size": 9}
MODELS = (Bert(BertConfig(**SIZES)), ClipText(ClipTextConfig(**SIZES)), Decoder(LLAMA))
KEEP = np.array([[True, False, True]])


@pytest.mark.parametrize("turn", [np.asarray, jnp.asarray])
def test_ones_and_zeros_are_booleans(turn):
    for dtype in (bool, np.int64, np.int32, np.uint8):
        got = boolean_mask(turn(KEEP.astype(dtype)), KEEP.shape)
        assert got.dtype == bool
        np.testing.assert_array_equal(got, KEEP)
    assert boolean_mask(None, (2, 3)).all()
    for wrong in (KEEP * 2, -1 * KEEP, np.where(KEEP, 0.0, -np.inf), KEEP * 1.0):
        with pytest.raises(InputError, match=r"ids_mask is .*ids_mask\.astype\(bool\)"):
            boolean_mask(turn(wrong), KEEP.shape, "ids_mask")


@pytest.mark.parametrize("model", MODELS, ids=["bert", "clip", "decoder"])
def test_numbers_inside_jit_are_refused_by_every_model(model):
    ids = np.zeros((1, 3), np.int32)
    run = lambda mask: model.init(jax.random.key(0), ids, mask)
    jax.eval_shape(run, KEEP)
    for mask in (KEEP * 1, KEEP * 1.0):
        with pytest.raises(InputError, match=r"inside jit.*mask\.astype\(bool\)"):
            jax.eval_shape(run, mask)


def test_a_mask_that_is_added_to_scores_is_refused_by_attention():
    x = jnp.zeros((1, 3, 1, 2))
    added = np.where(KEEP, 0.0, -np.inf)[:, None, None]
    with pytest.raises(InputError, match="by mask == 0"):
        dot_product_attention(x, x, x, mask=added)
