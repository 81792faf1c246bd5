"""Generation against reading everything again; scores; draws."""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eegkd.errors import InputError
from eegkd.models import (
    Decoder,
    Decoding,
    LoraConfig,
    apply_adapted,
    generate,
    init_adapters,
    merge_adapters,
    prefill,
    score_continuations,
)
from eegkd.models.generate import LOST, Chooser, _continue
from eegkd.ops.masks import boolean_mask
from tests.support.decoders import LLAMA, padded, random_params

DECODER, PARAMS = Decoder(LLAMA), random_params(LLAMA)
PROMPTS = [
    np.random.default_rng(i).integers(0, LLAMA.vocab_size, length)
    for i, length in enumerate((6, 3, 1))
]
NEW = 5


def continued(params, *prompts, **options):
    """What `generate` adds to prompts; options of `Decoding` beside its own."""
    names = {field.name for field in dataclasses.fields(Decoding)} & set(options)
    how = Decoding(**{name: options.pop(name) for name in names})
    return generate(DECODER, params, *prompts, decoding=how, **options)


GENERATE = functools.partial(continued, PARAMS, max_new_tokens=NEW)


@functools.lru_cache
def read_again():
    """Logits of a whole text, which is padded to one length on the right."""
    return jax.jit(lambda ids: DECODER.apply({"params": PARAMS}, ids)["logits"])


def log_probs(text):
    ids = np.zeros((1, 12), np.int32)
    ids[0, : len(text)] = text
    return np.asarray(jax.nn.log_softmax(read_again()(ids)))[0, : len(text)]


def greedy(prompt):
    text, scores = list(prompt), []
    for _ in range(NEW):
        logs = log_probs(text)[-1]
        text.append(int(logs.argmax()))
        scores.append(logs.max())
    return text[len(prompt) :], scores


@pytest.fixture(scope="module")
def wants():
    return [greedy(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_what_each_prompt_read_again_gives(wants, side):
    ids, mask = padded(PROMPTS, side)
    got = GENERATE(ids, mask)
    np.testing.assert_array_equal(got.tokens, [tokens for tokens, _ in wants])
    np.testing.assert_array_equal(got.lengths, NEW)
    np.testing.assert_allclose(got.logprobs, [scores for _, scores in wants], atol=1e-4)
    embeds = PARAMS["embed"]["embedding"][ids]
    same = GENERATE(embeds=embeds, mask=mask)
    np.testing.assert_array_equal(same.tokens, got.tokens)


def test_a_row_ends_at_a_stop_and_the_loop_with_the_last_row(wants):
    ids, mask = padded(PROMPTS, "left")
    (first, _), (second, _), (third, _) = wants
    stops = (first[1], second[2], third[0])
    got = GENERATE(ids, mask, stop_ids=stops, pad_id=39)
    lengths = [
        1 + next((i for i, token in enumerate(tokens) if token in stops), NEW - 1)
        for tokens, _ in wants
    ]
    assert len(set(lengths)) > 1
    assert max(lengths) < NEW
    np.testing.assert_array_equal(got.lengths, lengths)
    for (tokens, scores), length, row, logs in zip(
        wants, lengths, got.tokens, got.logprobs, strict=True
    ):
        np.testing.assert_array_equal(row, tokens[:length] + [39] * (NEW - length))
        np.testing.assert_allclose(logs[:length], scores[:length], atol=1e-4)
        np.testing.assert_array_equal(logs[length:], 0)
    logits, cache = prefill(DECODER, PARAMS, ids, mask, room=10)
    _, cache = _continue(
        DECODER,
        PARAMS,
        logits,
        cache,
        Chooser(jnp.array(stops), jnp.int32(0), None, jnp.float32(0), None),
        max_new_tokens=NEW,
        adapters=None,
        alpha=1.0,
    )
    assert int(cache.length) == 6 + max(lengths) - 1


def test_the_same_key_draws_the_same():
    ids, mask = padded(PROMPTS, "left")
    draw = lambda seed, **options: (
        GENERATE(ids, mask, temperature=1.5, key=jax.random.key(seed), **options).tokens
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (np.asarray(draw(0)) != draw(1)).any()
    # So little probability leaves the likeliest token alone.
    likeliest = GENERATE(ids, mask).tokens
    np.testing.assert_array_equal(draw(0, top_p=1e-6), likeliest)


@pytest.mark.parametrize("top_p", [0.6, pytest.param(1.0, marks=pytest.mark.slow)])
def test_draws_follow_the_probabilities(top_p):
    num, temperature = 4000, 2.0
    ids = np.tile(PROMPTS[1], (num, 1))
    got = GENERATE(
        ids,
        max_new_tokens=1,
        temperature=temperature,
        top_p=top_p,
        key=jax.random.key(5),
    )
    logs = log_probs(PROMPTS[1])[-1]
    p = np.exp(logs / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    kept = order[: 1 + int((np.cumsum(p[order]) < top_p).sum())]
    want = np.zeros_like(p)
    want[kept] = p[kept] / p[kept].sum()
    found = np.bincount(np.asarray(got.tokens[:, 0]), minlength=len(p)) / num
    assert (found[want == 0] == 0).all()
    spread = np.sqrt(want * (1 - want) / num)
    assert (np.abs(found - want) <= 4.5 * spread + 1e-9).all()
    # What is told of a token is the model's own view of it.
    np.testing.assert_allclose(got.logprobs[:, 0], logs[got.tokens[:, 0]], atol=1e-4)


ENDS = [[3, 17, 5], [3, 9], [30]]


@pytest.mark.parametrize("each", [False, True], ids=["shared", "own"])
def test_scores_are_sums_over_the_continuation(each):
    ids, mask = padded(PROMPTS, "left")
    ends, kept = padded(ENDS, "right")
    if each:
        ends = np.stack([ends, (ends + 1) % 40, (ends + 2) % 40])
        kept = np.broadcast_to(kept, ends.shape)
    got = score_continuations(
        DECODER, PARAMS, ids, mask, continuations=ends, continuation_mask=kept
    )
    assert got.shape == (3, 3)
    for i, j in np.ndindex(3, 3):
        prompt, end = PROMPTS[i], (np.array(ENDS[j]) + i * each) % 40
        logs = log_probs([*prompt, *end])
        want = sum(logs[len(prompt) - 1 + t, token] for t, token in enumerate(end))
        np.testing.assert_allclose(got[i, j], want, atol=2e-4)


def test_choices_of_one_token_are_the_prompts_own_logits():
    ids, mask = padded(PROMPTS, "right")
    choices = np.array([[4], [8]])
    got = score_continuations(DECODER, PARAMS, ids, mask, continuations=choices)
    want = [log_probs(prompt)[-1][[4, 8]] for prompt in PROMPTS]
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.slow
def test_adapters_generate_and_score_as_merged_weights_do():
    ids, mask = padded(PROMPTS, "left")
    lora = LoraConfig(rank=2, alpha=4.0)
    linears = [f"layers/{name}" for name in ("query", "down")]
    start = init_adapters(jax.random.key(0), PARAMS, linears, lora)
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), start)
    merged = merge_adapters(PARAMS, adapters, alpha=4.0)
    given = {"adapters": adapters, "alpha": 4.0}
    got = GENERATE(ids, mask, **given)
    want = continued(merged, ids, mask, max_new_tokens=NEW)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    assert (np.asarray(got.tokens) != GENERATE(ids, mask).tokens).any()
    ends = {"continuations": np.array([[4], [8]])}
    np.testing.assert_allclose(
        score_continuations(DECODER, PARAMS, ids, mask, **ends, **given),
        score_continuations(DECODER, merged, ids, mask, **ends),
        atol=1e-4,
    )
    logits = apply_adapted(DECODER, PARAMS, adapters, ids, mask, alpha=4.0)["logits"]
    np.testing.assert_array_equal(logits[:, -1].argmax(-1), got.tokens[:, 0])


@pytest.mark.slow
def test_parameters_cut_over_a_mesh_generate_the_same():
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=auto)
    on = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))

    def cut(path, leaf):
        name = path[-2].key
        if name in ("query", "key", "value", "gate", "up"):
            return jax.device_put(leaf, on(None, "data", "model"))
        if name in ("out", "down"):
            return jax.device_put(leaf, on(None, "model", "data"))
        return jax.device_put(leaf, on())

    ids, mask = padded(PROMPTS[:2], "left")
    want = GENERATE(ids, mask)
    params = jax.tree_util.tree_map_with_path(cut, PARAMS)
    given = [jax.device_put(x, on("data")) for x in (ids, mask)]
    got = continued(params, *given, max_new_tokens=NEW)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    _, cache = prefill(DECODER, params, *given, room=10)
    # A device keeps the keys of its own prompts and heads.
    sizes = {part.data.shape for part in cache.key.addressable_shards}
    assert sizes == {(3, 1, 10, 1, 6)}


@pytest.mark.slow
def test_nothing_is_a_cpus_alone():
    ids, mask = padded(PROMPTS, "left")

    def both(params, key):
        draw = {"temperature": 1.0, "top_p": 0.9, "key": key, "stop_ids": (2,)}
        text = continued(params, ids, mask, max_new_tokens=NEW, **draw)
        choices = {"continuations": np.array([[4, 5], [8, 9]])}
        return text, score_continuations(DECODER, params, ids, mask, **choices)

    export = jax.export.export(jax.jit(both), platforms=("tpu", "cuda"))
    assert export(PARAMS, jax.random.key(0)).platforms == ("tpu", "cuda")


def test_ones_and_zeros_are_a_mask_and_other_numbers_are_none():
    ids, mask = padded(PROMPTS, "left")
    want = GENERATE(ids, mask)
    for ones in (mask.astype(np.int64), jnp.asarray(mask, jnp.int32)):
        np.testing.assert_array_equal(GENERATE(ids, ones).tokens, want.tokens)
    ends, kept = padded(ENDS, "right")
    score = lambda mask, kept: score_continuations(
        DECODER, PARAMS, ids, mask, continuations=ends, continuation_mask=kept
    )
    ones = kept.astype(np.int8)
    np.testing.assert_array_equal(score(mask * 1, ones), score(mask, kept))
    run = lambda mask: DECODER.apply({"params": PARAMS}, ids, mask)
    with pytest.raises(InputError, match=r"mask is int64.*mask.astype\(bool\)"):
        run(mask * 2)
    with pytest.raises(InputError, match="mask is float64.*mask == 0"):
        GENERATE(ids, np.where(mask, 0, -np.inf))
    with pytest.raises(InputError, match="mask is int.* inside jit"):
        jax.eval_shape(run, mask * 1)
    with pytest.raises(InputError, match=r"mask has the shape \(3, 5\), and \(3, 6\)"):
        boolean_mask(mask[:, 1:], ids.shape)


def test_prompts_without_tokens_and_ids_of_no_vocabulary_are_refused():
    ids, mask = padded(PROMPTS, "left")
    empty = mask & ~np.array([True, False, True])[:, None]
    ends = {"continuations": np.array([[4], [8]])}
    for call in (
        GENERATE,
        functools.partial(score_continuations, DECODER, PARAMS, **ends),
    ):
        with pytest.raises(InputError, match="no token in rows 0, 2: leave it out"):
            call(ids, empty)
        with pytest.raises(InputError, match=r"ids: token -200 at \(0, 0\).*of 40"):
            call(np.where(ids == ids[0, 0], -200, ids), mask)
        with pytest.raises(InputError, match=r"shape \(0, 6\): need ids \[b, l\]"):
            call(ids[:0], mask[:0])
    # Padding is not read, whatever stands there.
    padding = np.where(mask, ids, -100)
    np.testing.assert_array_equal(
        GENERATE(padding, mask).tokens, GENERATE(ids, mask)[0]
    )
    # Inside jit, where nobody can tell, the row says it itself, and it alone.
    run = jax.jit(lambda ids, mask: GENERATE(ids, mask, pad_id=39))
    got, want = run(ids, empty), GENERATE(ids, mask)
    np.testing.assert_array_equal(got.tokens[1], want.tokens[1])
    np.testing.assert_array_equal(got.tokens[::2], [[LOST] + [39] * (NEW - 1)] * 2)
    assert np.isnan(got.logprobs[::2, 0]).all()
    np.testing.assert_array_equal(got.lengths, [1, NEW, 1])


def test_logits_that_are_no_numbers_are_refused_by_row():
    embeds = np.array(PARAMS["embed"]["embedding"][padded(PROMPTS, "left")[0]])
    embeds[1, -1] = np.nan
    with pytest.raises(InputError, match=r"generate: .* no numbers \(NaN\) for row 1:"):
        GENERATE(embeds=embeds)
    ends = {"continuations": np.array([[4], [8]])}
    with pytest.raises(InputError, match="score_continuations: .* for row 1:"):
        score_continuations(DECODER, PARAMS, embeds=embeds, **ends)


def test_wrong_continuations_are_refused():
    ids, ends = np.zeros((1, 2), np.int32), np.array([[4, 5], [8, 9]])
    score = functools.partial(score_continuations, DECODER, PARAMS, ids)
    # It would be as likely as can be.
    kept = np.array([[True, True], [False, False]])
    with pytest.raises(InputError, match="without any token has no likelihood"):
        score(continuations=ends, continuation_mask=kept)
    with pytest.raises(InputError, match=r"continuations: token -100 at \(1, 1\)"):
        score(continuations=np.where(ends == 9, -100, ends))
    with pytest.raises(InputError, match=r"shape \(0, 2\): need \[k, n\]"):
        score(continuations=ends[:0])
    same = score(
        continuations=np.where(ends == 9, -100, ends),
        continuation_mask=np.array([[1, 1], [1, 0]]),
    )
    np.testing.assert_allclose(
        same[:, 1:], score(continuations=np.array([[8]])), atol=1e-5
    )


def test_wrong_arguments_are_refused():
    ids = np.zeros((1, 2), np.int32)
    with pytest.raises(ValueError, match="max_new_tokens >= 1.*got 0"):
        GENERATE(ids, max_new_tokens=0)
    with pytest.raises(ValueError, match=r"top_p in \(0, 1\]; got 5, 0.0, 0.0"):
        GENERATE(ids, top_p=0.0)
    with pytest.raises(ValueError, match="needs a key"):
        GENERATE(ids, temperature=1.0)
    with pytest.raises(ValueError, match="either ids or embeds"):
        GENERATE()
    with pytest.raises(ValueError, match="adapters need alpha"):
        GENERATE(ids, adapters={})
    late = np.array([[False, True]])
    with pytest.raises(ValueError, match="after their tokens"):
        score_continuations(
            DECODER, PARAMS, ids, continuations=ids, continuation_mask=late
        )
