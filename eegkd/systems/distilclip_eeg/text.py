"""The text half of a two-tower system: class texts in, class vectors out.

Only the unique texts of a step are encoded, one per class, and indexed by label: never
one text per example. Every device draws the same ones, so nothing needs gathering.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.data.language import class_texts as texts
from eegkd.data.language import towers
from eegkd.errors import InputError
from eegkd.models import (
    Bert,
    BertConfig,
    Projection,
    Prompts,
    apply_params,
    load_pretrained,
)
from eegkd.ops.pairwise import masked_mean
from eegkd.systems import Weights
from eegkd.systems.distilclip_eeg.config import DistilClipConfig
from eegkd.systems.loaded import loaded_weights
from eegkd.typing import Array, Float, PyTree, StepKeys

MAX_LENGTH = 64
Params = Mapping[str, Any]


class TextSide(NamedTuple):
    """Functions from class texts to vectors of length one.

    Attributes:
        init: `(key, loaded) -> (trained, frozen)`; trained is empty where nothing
            learns, `loaded` is what `load` reads.
        draw: `(trained, frozen, keys) -> [k, d]`, one text per class, for a step.
        encode_all: `(trained, frozen) -> [k, m, d]`, every text of every class.
        load: Published weights that it starts from, if any.
    """

    init: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
    draw: Callable[[Params, PyTree, StepKeys], Float[Array, "k d"]]
    encode_all: Callable[[Params, PyTree], Float[Array, "k m d"]]
    load: Weights | None = None


def ensemble(every: Float[Array, "k m d"]) -> Float[Array, "k d"]:
    """Averages the texts of each class and normalises again (prompt ensembling)."""
    return unit_length(jnp.mean(every, axis=1))


def unit_length(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Divides by the length; a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def fixed_text(frozen: Mapping[str, Array]) -> TextSide:
    """Returns the text side that is already encoded: `frozen["texts"]`, [k, m, d]."""

    def draw(_: Params, frozen: PyTree, keys: StepKeys) -> Array:
        every = frozen["texts"]
        k, m, _ = every.shape
        return every[jnp.arange(k), jax.random.randint(keys.shared, (k,), 0, m)]

    return TextSide(
        init=lambda key, loaded: (
            {},
            {n: frozen[n] for n in ("texts", "class_vectors")},
        ),
        draw=draw,
        encode_all=lambda trained, frozen: frozen["texts"],
    )


def make_text_side(config: DistilClipConfig) -> TextSide | None:
    """Builds the text side that `config.text` asks for; None is no text at all.

    Raises:
        InputError: If a text, a file or weights are missing.
    """
    source, classes = config.text.source, config.signal.classes
    if source == "none":
        return None
    if source == "random_class_vectors":
        return _random_text(len(classes), config.proj.dim)
    return _bert_text(config, _texts(config))


def _texts(config: DistilClipConfig) -> tuple[tuple[str, ...], ...]:
    """Returns the texts of every class: templates, those of a file, or all of them."""
    source, classes = config.text.source, config.signal.classes
    groups = [()] * len(classes)
    if source in ("templates", "both"):
        handcrafted = config.prompt.mode == "handcrafted"
        groups = texts.class_texts(classes, handcrafted=handcrafted)
    if source in ("file", "both"):
        own = _own_texts(config)
        groups = [(*a, *b) for a, b in zip(groups, own, strict=True)]
    return tuple(groups)


def _own_texts(config: DistilClipConfig) -> tuple[tuple[str, ...], ...]:
    if not config.text.file:
        raise InputError(
            f"--text.source {config.text.source} needs --text.file TEXTS.csv, with the "
            "columns label,text."
        )
    file = Path(config.text.file).expanduser()
    return texts.read_texts(file, config.signal.classes)


def text_notes(config: DistilClipConfig) -> tuple[str, ...]:
    """Formats warnings: of texts that name their class, of a pooling that is another.

    What a user's file says of a class may be its name; the templates never do.
    """
    text, notes = config.text, []
    if text.source in ("file", "both"):
        named = texts.label_words(_own_texts(config), config.signal.classes)
        if named:
            notes.append(
                f"The texts in {text.file} name the classes {', '.join(named)}: what "
                "the text adds is then the label itself."
            )
    if text.bert and text.source in ("templates", "file", "both"):
        pooling = towers.published_pooling(towers.find_tower(text.bert))
        if pooling not in (None, text.pooling):
            notes.append(
                f"The text tower in {text.bert} was trained with vectors pooled by "
                f"{pooling}, and is used with {text.pooling} (--text.pooling)."
            )
    return tuple(notes)


def _random_text(num_classes: int, dim: int) -> TextSide:
    """Makes distinct random vectors in place of language, as a control."""

    def init(key: Array, loaded: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        vectors = jax.random.normal(key, (num_classes, 1, dim))
        every = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
        return {}, {"texts": every, "class_vectors": every[:, 0]}

    return fixed_text({})._replace(init=init)


def _bert_text(
    config: DistilClipConfig, groups: tuple[tuple[str, ...], ...]
) -> TextSide:
    """Encodes class texts by BERT, loaded or random, with prompts and projection."""
    module, words, load = _bert(config, groups)
    ids, mask, counts = texts.tokenize(
        groups,
        words.vocabulary,
        max_length=min(MAX_LENGTH, module.cfg.max_positions),
        lowercase=words.lowercase,
    )
    learnable = config.prompt.mode == "learnable" and config.text.num_prompts > 0
    prompts = Prompts(
        module.cfg.depth,
        config.text.num_prompts,
        module.cfg.dim,
        config.prompt.init_std,
    )
    projection = Projection(config.proj.dim)
    train_bert = config.text.train == "finetune" or (
        config.text.train == "auto" and load is None
    )

    def init(key: Array, loaded: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bert_key, prompt_key, head_key = jax.random.split(key, 3)
        bert = loaded or module.init(bert_key, ids[0])["params"]
        features = jnp.zeros((1, module.cfg.dim))
        trained = {"projection": projection.init(head_key, features)["params"]}
        if learnable:
            trained["prompts"] = prompts.init(prompt_key)["params"]
        if train_bert:
            return trained | {"bert": bert}, {}
        return trained, {"bert": bert}

    def encode(
        trained: Params,
        frozen: PyTree,
        ids: Array | np.ndarray,
        mask: Array | np.ndarray,
        key: Array | None = None,
    ) -> Float[Array, "n d"]:
        bert = trained["bert"] if train_bert else frozen["bert"]
        deep = apply_params(prompts, trained["prompts"]) if learnable else None
        out = apply_params(
            module,
            bert,
            ids,
            mask,
            prompts=deep,
            train=key is not None and train_bert,
            rngs={} if key is None else {"dropout": key},
        )
        pooled = out["cls"]
        if config.text.pooling == "mean":
            pooled = masked_mean(out["tokens"], jnp.asarray(mask))
        return apply_params(projection, trained["projection"], pooled)

    side = _drawn(config, encode, ids, mask, counts)
    return side._replace(init=init, load=load)


def _bert(
    config: DistilClipConfig, groups: tuple[tuple[str, ...], ...]
) -> tuple[Bert, towers.Words, Weights | None]:
    """Builds BERT and its vocabulary, from a folder or with random weights."""
    if config.text.bert:
        folder = towers.find_tower(config.text.bert)
        words = towers.read_words(folder)
        module, loaded = load_pretrained("bert", folder)
        if len(words.vocabulary) > module.cfg.vocab_size:
            raise InputError(
                f"{folder}: its vocabulary has {len(words.vocabulary)} tokens, the "
                f"weights {module.cfg.vocab_size}: take both from one model."
            )
        weights = loaded_weights("bert", str(folder), loaded["params"])
        return module, words, weights
    vocabulary, dim = texts.build_vocabulary(groups), config.text.dim
    sizes = BertConfig(
        vocab_size=len(vocabulary),
        dim=dim,
        depth=config.text.depth,
        num_heads=config.text.num_heads,
        ffn_dim=4 * dim,
        max_positions=MAX_LENGTH,
        dropout=config.text.dropout,
        # BERT's own 0.02 leaves [CLS] blind to the words until it is trained.
        init_std=dim**-0.5,
        pooler=False,
    )
    return Bert(sizes), towers.Words(vocabulary), None


def _drawn(
    config: DistilClipConfig,
    encode: Callable[..., Float[Array, "n d"]],
    ids: np.ndarray,
    mask: np.ndarray,
    counts: np.ndarray,
) -> TextSide:
    """Draws one text per class for a step, or encodes all; without an `init`."""

    def centred(vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
        # [CLS] of different texts differ little (their cosine is 0.95 and more), and
        # class vectors that are nearly equal teach the EEG tower nothing.
        if not config.text.centre:
            return vectors
        return unit_length(vectors - jnp.mean(vectors, axis=0))

    def draw(trained: Params, frozen: PyTree, keys: StepKeys) -> Array:
        # One key for all devices: they must contrast against the same texts.
        pick_key, drop_key = jax.random.split(keys.shared)
        if config.text.draw == "all":
            return ensemble(encode_all(trained, frozen, key=drop_key))
        pick = jax.random.randint(pick_key, (len(counts),), 0, counts)
        row = jnp.arange(len(counts))
        drawn = jnp.asarray(ids)[row, pick], jnp.asarray(mask)[row, pick]
        return centred(encode(trained, frozen, *drawn, key=drop_key))

    def encode_all(
        trained: Params, frozen: PyTree, *, key: Array | None = None
    ) -> Array:
        k, m, length = ids.shape
        flat = ids.reshape(k * m, length), mask.reshape(k * m, length)
        return centred(encode(trained, frozen, *flat, key=key)).reshape(k, m, -1)

    return TextSide(fixed_text({}).init, draw, encode_all)
