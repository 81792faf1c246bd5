"""Class vectors of a published tower against transformers, by either pooling."""

import dataclasses

import jax
import numpy as np
import pytest

from eegkd.config import preset_config
from eegkd.models import Projection, apply_params
from eegkd.systems import SignalConfig
from eegkd.systems.distilclip_eeg import ENTRY
from eegkd.systems.distilclip_eeg.config import PromptConfig, TextConfig
from eegkd.systems.distilclip_eeg.text import make_text_side
from tests.support.bert_files import write_package

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ("Slow waves of one side", "sharp waves", "sharper runs")


def sentences(folder, pooling):
    """As sentence-transformers pools: the mean of tokens that are no padding."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
    given = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.eval()(**given).last_hidden_state
    if pooling == "cls":
        return hidden[:, 0].numpy()
    mask = given["attention_mask"].unsqueeze(-1).float()
    return ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)).numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_class_vectors_are_those_of_transformers(tmp_path, pooling, lowercase):
    folder = write_package(tmp_path / "pkg", lowercase=lowercase)
    rows = zip(("background", "seizure", "seizure"), TEXTS, strict=True)
    body = "\n".join(["label,text", *(",".join(row) for row in rows)])
    (tmp_path / "texts.csv").write_text(body)
    text = TextConfig(
        source="file",
        file=str(tmp_path / "texts.csv"),
        bert=str(tmp_path / "pkg"),
        pooling=pooling,
        centre=False,
    )
    config = dataclasses.replace(
        preset_config(ENTRY, "small"),
        signal=SignalConfig(
            n_chans=3, n_times=128, rate=64.0, classes=("background", "seizure")
        ),
        text=text,
        prompt=PromptConfig(mode="none"),
    )
    side = make_text_side(config)
    with jax.default_matmul_precision("float32"):
        trained, frozen = side.init(jax.random.key(0), side.load.read())
        every = np.asarray(jax.jit(side.encode_all)(trained, frozen))
        pooled = sentences(folder, pooling)
        head = Projection(config.proj.dim)
        want = apply_params(head, trained["projection"], pooled)
    got = np.stack([every[0, 0], every[1, 0], every[1, 1]])
    np.testing.assert_allclose(got, want, atol=1e-5)
