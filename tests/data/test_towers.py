"""Folders of text towers: found where a package keeps them, read as published."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from eegkd.data.language.class_texts import tokenize
from eegkd.data.language.towers import find_tower, published_pooling, read_words
from eegkd.errors import InputError
from tests.support.bert_files import TOKENS, write_package

TEXTS = (("a sharp Wave.", "Slow waves of one side"), ("sharper runs, one unknown",))


def test_a_packages_tower_is_found_inside_it(tmp_path):
    folder = write_package(tmp_path / "site" / "pkg")
    for given in (folder, folder.parent, tmp_path / "site", str(tmp_path)):
        assert find_tower(given) == folder
    write_package(tmp_path / "site" / "other")
    with pytest.raises(InputError, match="several towers .*other/model, .*pkg/model"):
        find_tower(tmp_path / "site")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no text tower .* vocab.txt or tokenizer"):
        find_tower(folder.parent)
    with pytest.raises(InputError, match="--text.bert .*missing: no such folder"):
        find_tower(tmp_path / "missing")


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("gone", ["vocab.txt", "tokenizer.json"])
def test_words_become_the_published_numbers(tmp_path, lowercase, gone):
    folder = write_package(tmp_path, lowercase=lowercase)
    published = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / gone).unlink()
    words = read_words(folder)
    assert words.lowercase == lowercase
    assert words.vocabulary == {token: i for i, token in enumerate(TOKENS)}
    ids, mask, _ = tokenize(
        TEXTS, words.vocabulary, max_length=10, lowercase=words.lowercase
    )
    for k, m in ((0, 0), (0, 1), (1, 0)):
        want = published.encode(TEXTS[k][m]).ids
        np.testing.assert_array_equal(ids[k, m, mask[k, m]], want)


def test_case_is_told_by_the_tokenizer_where_its_config_does_not(tmp_path):
    folder = write_package(tmp_path, lowercase=False)
    (folder / "tokenizer_config.json").unlink()
    assert not read_words(folder).lowercase
    (folder / "tokenizer.json").unlink()
    assert read_words(folder).lowercase
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match="no vocab.txt or tokenizer.json"):
        read_words(folder)


def test_a_vocabulary_of_another_kind_is_refused(tmp_path):
    folder = write_package(tmp_path)
    whole = folder / "tokenizer.json"
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nwaves\n")
    with pytest.raises(InputError, match=r"no \[CLS\], \[SEP\]: is this a BERT"):
        read_words(folder)
    (folder / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="vocab.txt: no UTF-8"):
        read_words(folder)
    (folder / "vocab.txt").unlink()
    whole.write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    with pytest.raises(InputError, match="is Unigram, not WordPiece"):
        read_words(folder)
    for broken, said in (("{", "not JSON"), ("[]", "a list of 0, not an object")):
        whole.write_text(broken)
        with pytest.raises(InputError, match=f"tokenizer.json: it is {said}"):
            read_words(folder)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_published_pooling_is_read(tmp_path, pooling):
    folder = write_package(tmp_path, pooling=pooling)
    assert published_pooling(folder) == pooling
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert published_pooling(folder) is None
    assert published_pooling(tmp_path) is None
