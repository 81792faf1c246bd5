import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegkd.cache.forms import (
    TensorForm,
    choose_form,
    decode,
    encode,
    fit_basis,
    from_bfloat16,
    to_bfloat16,
)
from eegkd.errors import InputError
from tests.support.cache_toy import fill, read_all


def oracle(x, numbers):
    """Stores and reads one array, written plainly in float64."""
    x = np.asarray(x, np.float64)
    if numbers == "float32":
        return x
    if numbers == "int8":
        out = np.empty_like(x)
        for i in np.ndindex(x.shape[:-1]):
            scale = np.abs(x[i]).max() / 127
            out[i] = np.round(x[i] / scale) * scale if scale else 0
        return out
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("pool", [1, 3])
def test_a_form_reads_back_what_the_oracle_says(tmp_path, numbers, pool):
    cache, values = fill(tmp_path / "c", numbers=numbers, pool=pool, shard_rows=16)
    x = values["teacher.tokens"][:, 0].astype(np.float64)
    kept = x.reshape(50, 6 // pool, pool, 8).mean(axis=2)
    got = read_all(cache)["tokens"]
    np.testing.assert_allclose(got, oracle(kept, numbers), rtol=2e-6, atol=2e-6)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(
        read_all(cache)["logits"], values["teacher.logits"][:, 0]
    )
    stated = cache.errors["teacher.tokens"]
    for name, want in (
        ("relative_rms", x),
        ("relative_rms_after_pooling", kept),
    ):
        read = np.repeat(got, pool, axis=1) if want is x else got
        error = np.sqrt(np.mean((read - want) ** 2) / np.mean(want**2))
        np.testing.assert_allclose(stated[name], error, rtol=1e-3, atol=1e-7)
    limit = {"float32": 1e-7, "bfloat16": 2e-3, "int8": 5e-3}[numbers]
    assert stated["relative_rms_after_pooling"] < limit
    assert cache.errors["teacher.logits"]["relative_rms"] == 0


def test_a_low_rank_is_the_best_there_is_and_its_error_is_of_other_rows(tmp_path):
    cache, values = fill(tmp_path / "c", num=400, rank=4)
    x = values["teacher.tokens"][:, 0]
    got = read_all(cache)["tokens"]
    assert got.shape == x.shape
    flat = x[::2].reshape(-1, 8).astype(np.float64)
    mean = flat.mean(axis=0)
    _, _, vt = np.linalg.svd(flat - mean, full_matrices=False)
    want = (x - mean) @ vt[:4].T @ vt[:4] + mean
    np.testing.assert_allclose(got, want, atol=1e-4)
    judged = slice(1, None, 2)
    error = np.sqrt(np.mean((got - x)[judged] ** 2) / np.mean(x[judged] ** 2))
    stated = cache.errors["teacher.tokens"]["relative_rms"]
    np.testing.assert_allclose(stated, error, rtol=1e-4)
    assert 0.01 < stated < 0.3


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False).filter(
            lambda x: abs(x) < 3e38
        ),
        min_size=1,
    )
)
def test_bfloat16_rounds_as_jax_does(values):
    import jax.numpy as jnp

    x = np.array(values, np.float32)
    got = from_bfloat16(to_bfloat16(x))
    np.testing.assert_array_equal(got, np.asarray(jnp.asarray(x, jnp.bfloat16), "f4"))


def test_int8_of_zeros_is_zero():
    form = TensorForm((4, 2), "float32", "int8")
    parts = encode(np.zeros((3, 4, 2)), form)
    assert parts[""].dtype == np.int8
    np.testing.assert_array_equal(decode(parts, form), 0)


def test_a_basis_of_full_rank_loses_nothing():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    form = TensorForm((5,), "float32", rank=5)
    basis = fit_basis(x, 5)
    np.testing.assert_allclose(
        decode(encode(x, form, basis), form, basis), x, atol=1e-5
    )


def test_only_tokens_are_stored_inexactly_unless_named():
    options = {"numbers": "int8", "pool": 2, "rank": 4}
    logits = choose_form("t.logits", (3,), "float32", asked=(), **options)
    assert logits == TensorForm((3,), "float32")
    tokens = choose_form("t.tokens", (6, 8), "float32", asked=(), **options)
    assert tokens == TensorForm((6, 8), "float32", "int8", 2, 4)
    assert tokens.read_shape == (3, 8)
    assert tokens.bytes == 3 * (4 + 4)
    named = choose_form(
        "t.logits", (3,), "float32", numbers="int8", pool=1, rank=0,
        asked=("t.logits",),
    )  # fmt: skip
    assert named.numbers == "int8"
    left = choose_form("t.tokens", (6, 8), "float32", asked=("t.logits",), **options)
    assert left.numbers == "float32"
    mask = choose_form("t.mask", (6, 8), "bool", asked=(), **options)
    assert mask.bytes == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 4}, "t.tokens has 6 tokens"),
        ({"rank": 8}, r"t.tokens has shape \[6, 8\]"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(options, message):
    whole = {"numbers": "float32", "pool": 1, "rank": 0} | options
    with pytest.raises(InputError, match=message):
        choose_form("t.tokens", (6, 8), "float32", asked=(), **whole)
