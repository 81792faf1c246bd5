"""Class texts of DistilCLIP-EEG: whose they are, and which tower reads them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.config import preset_config
from eegkd.data.language.class_texts import MORPHOLOGY
from eegkd.errors import InputError
from eegkd.models import Projection, apply_params, load_pretrained
from eegkd.systems import SignalConfig
from eegkd.systems.distilclip_eeg import ENTRY
from eegkd.systems.distilclip_eeg.config import ProjConfig, PromptConfig, TextConfig
from eegkd.systems.distilclip_eeg.text import make_text_side, text_notes
from eegkd.typing import StepKeys
from experiments.distilclip_eeg import VARIANTS
from tests.support.bert_files import write_package

CLASSES = ("background", "seizure")
OWN = (
    "label,text\nbackground,slow waves of one side\nseizure,sharp waves\n"
    'seizure,"runs, sharp"\n\n'
)


def config_of(**text):
    return dataclasses.replace(
        preset_config(ENTRY, "small"),
        signal=SignalConfig(n_chans=3, n_times=128, rate=64.0, classes=CLASSES),
        text=TextConfig(dim=16, depth=1, num_heads=2, **text),
        prompt=PromptConfig(mode="none"),
        proj=ProjConfig(dim=8),
    )


def own_texts(tmp_path, body=OWN, encoding="utf-8"):
    path = tmp_path / "texts.csv"
    path.write_text(body, encoding=encoding)
    return str(path)


def test_a_packages_tower_encodes_class_texts_by_either_pooling(tmp_path):
    folder = write_package(tmp_path / "pkg")
    given = {"source": "file", "file": own_texts(tmp_path), "centre": False}
    module, variables = load_pretrained("bert", folder)
    ids = np.array([[2, 9, 5, 14, 15, 16, 3], [2, 8, 5, 3, 0, 0, 0]])
    mask = ids > 0
    tokens = np.asarray(jax.jit(module.apply)(variables, ids, mask)["tokens"])
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    for pooling, want in (("cls", tokens[:, 0]), ("mean", mean)):
        config = config_of(bert=str(tmp_path / "pkg"), pooling=pooling, **given)
        side = make_text_side(config)
        assert side.load.files == (folder / "model.safetensors",)

        @jax.jit
        def encoded(side=side, want=want):
            trained, frozen = side.init(jax.random.key(0), side.load.read())
            projected = apply_params(Projection(8), trained["projection"], want)
            return trained, side.encode_all(trained, frozen), projected

        trained, every, want = encoded()
        assert set(trained) == {"projection"}  # a loaded tower stays as it is
        np.testing.assert_allclose(every[:, 0], want, atol=1e-5)
        told = text_notes(config)
        assert len(told) == (pooling == "cls")
        assert all("pooled by mean, and is used with cls" in note for note in told)


def test_texts_of_a_file_are_drawn_beside_the_templates(tmp_path):
    file = own_texts(tmp_path)
    config = config_of(source="both", file=file, draw="one", centre=False)
    side = make_text_side(config)
    templates, own = len(MORPHOLOGY["background"]), (1, 2)

    @jax.jit
    def drawn(keys):
        trained, frozen = side.init(jax.random.key(0), None)
        every = side.encode_all(trained, frozen)
        pick = lambda key: side.draw(trained, frozen, StepKeys(key, key))
        return every, jax.lax.map(pick, keys)

    every, picks = drawn(jax.random.split(jax.random.key(1), 200))
    assert every.shape[1] == templates + max(own)
    for k, count in enumerate(own):
        cosine = jnp.einsum("md,nd->nm", every[k, : templates + count], picks[:, k])
        chosen = np.asarray(cosine).argmax(1)
        assert np.all(np.asarray(cosine).max(1) > 1 - 1e-5)
        assert set(chosen) == set(range(templates + count))


def test_a_file_that_names_a_class_is_said_with_templates_beside_it_too(tmp_path):
    body = OWN + "seizure,a seizure begins\n"
    for source in ("file", "both"):
        config = config_of(source=source, file=own_texts(tmp_path, body))
        (note,) = text_notes(config)
        assert "name the classes seizure:" in note
    assert text_notes(config_of(source="both", file=own_texts(tmp_path))) == ()
    assert text_notes(config_of()) == ()


@pytest.mark.parametrize("source", ["file", "both"])
def test_a_source_without_its_file_says_so(source):
    with pytest.raises(InputError, match=rf"--text.source {source} needs --text.file"):
        make_text_side(config_of(source=source))


def test_a_file_as_spreadsheets_save_it_is_read(tmp_path):
    config = config_of(source="file", file=own_texts(tmp_path, OWN, "utf-8-sig"))
    assert make_text_side(config) is not None
    own_texts(tmp_path, OWN.replace("slow", "sl\u00f6w"), "latin-1")
    with pytest.raises(InputError, match="save as UTF-8"):
        make_text_side(config)


def test_a_table_of_towers_needs_one(tmp_path):
    write_package(tmp_path)
    given = config_of(bert=str(tmp_path), pooling="mean")
    stages = {row: VARIANTS[row](given).stages for row in ("random_tower", "cls")}
    assert stages["random_tower"][0].load is None
    assert stages["cls"][0].load is not None
    with pytest.raises(InputError, match="--table tower .* --text.bert DIR"):
        VARIANTS["random_tower"](config_of())
