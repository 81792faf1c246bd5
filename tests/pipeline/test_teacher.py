"""Where the teacher's outputs are kept, decided and said before anything is trained."""

import json

import numpy as np
import pytest

from eegkd.cache.config import CacheConfig
from eegkd.config import RunConfig, TrainConfig
from eegkd.data.batches.augment import AugmentConfig
from eegkd.errors import InputError
from eegkd.losses import Term, kd_kl
from eegkd.pipeline import teacher_choice as teacher
from eegkd.pipeline.teacher_choice import choose_teacher, read_specs
from eegkd.systems import SignalConfig, add_terms, replace_stage
from tests.support import tiny_run, toy

SIGNAL = SignalConfig(n_chans=toy.CHANNELS, n_times=toy.TIMES, classes=("a", "b", "c"))
FRESH = AugmentConfig(noise=0.1, num_views=0)


def choose(mode="auto", *, system=None, rows=(), chosen=None, num=60, **options):
    cache = CacheConfig(**options.pop("cache", {}))
    train = TrainConfig(teacher=mode)
    config = RunConfig(train=train, cache=cache, signal=SIGNAL, **options)
    system = toy.make_matching_system() if system is None else system
    return choose_teacher(system, num, config, rows, chosen)


def test_auto_is_memory_then_disk_then_online(monkeypatch, tmp_path):
    found = choose()
    assert found.mode == "memory"
    # 3 logits and 4 numbers of the embedding, float32, 60 windows.
    assert "in memory: 1.6 KiB" in found.text
    monkeypatch.setattr(teacher, "MEMORY_LIMIT", 1679)
    found = choose(out=str(tmp_path))
    assert found.mode == "cached"
    assert "on disk: 1.6 KiB a fold" in found.text
    found = choose(out=str(tmp_path), cache={"limit_gb": 1e-6})
    assert found.mode == "online"
    assert "--cache.limit_gb 1e-06" in found.text
    assert not any(tmp_path.iterdir())


def test_views_count_and_a_fresh_one_needs_the_teacher(tmp_path):
    views = AugmentConfig(noise=0.1, num_views=5)
    assert "8.2 KiB" in choose(augment=views).text
    found = choose(augment=FRESH)
    assert found.mode == "online"
    assert "fresh view every epoch" in found.text
    for mode in ("cached", "memory"):
        with pytest.raises(InputError, match="set a number of views"):
            choose(mode, augment=FRESH)


@pytest.mark.parametrize(
    "cache", [{"form": "int8"}, {"folder": "x"}, {"pool": 2}, {"rank": 2}]
)
def test_asking_for_a_form_is_asking_for_the_disk(cache):
    for mode in ("memory", "online"):
        with pytest.raises(InputError, match=f"--cache.{next(iter(cache))} has no eff"):
            choose(mode, cache=cache)
    assert choose(cache=cache).mode == "cached"


def test_controls_that_move_outputs_need_them_kept():
    rows = ("alpha_0", "shuffled_teacher", "linear")
    for options in ({"mode": "online"}, {"augment": FRESH}):
        with pytest.raises(InputError, match="the rows shuffled_teacher need"):
            choose(rows=rows, **options)
        assert choose(rows=("alpha_0",), **options).mode == "online"


def test_an_earlier_start_has_decided(monkeypatch):
    monkeypatch.setattr(teacher, "MEMORY_LIMIT", 0)
    assert choose(chosen="memory").mode == "memory"


def test_a_cache_that_is_asked_for_and_too_large_is_refused():
    with pytest.raises(InputError, match="takes 1.6 KiB, more than --cache.limit_gb"):
        choose("cached", cache={"limit_gb": 1e-6})
    with pytest.raises(InputError, match="--cache.tensors teacher.x: the student rea"):
        choose(cache={"tensors": ("teacher.x",)})


def test_a_system_without_a_teacher_keeps_nothing():
    own = toy.make_system()
    student = own.stages[-1]
    alone = replace_stage(own, student._replace(terms=student.terms[:1]))
    assert choose(system=alone).mode == "none"


def test_a_tensor_without_rows_is_computed_online_or_refused():
    term = Term("scale", kd_kl, ("student.logits", "teacher.scale"), 1.0)
    system = add_terms(toy.make_system(), "student", term)
    assert choose(system=system).mode == "online"
    with pytest.raises(InputError, match="teacher.scale has no row"):
        choose("memory", system=system)


def test_what_is_given_is_not_trained(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        choose(cache={"given": str(tmp_path / "none")})
    with pytest.raises(InputError, match="none of teacher.logits.npy, teacher.embed"):
        choose(cache={"given": str(tmp_path)})
    (tmp_path / "teacher.logits.npy").touch()
    some = choose(cache={"given": str(tmp_path)})
    assert some.mode == "cached"
    assert some.external_stages(toy.make_matching_system()) == set()
    (tmp_path / "teacher.embedding.npy").touch()
    every = choose(cache={"given": str(tmp_path)})
    assert every.external_stages(toy.make_matching_system()) == {"teacher"}
    with pytest.raises(InputError, match="one view of a window"):
        choose(cache={"given": str(tmp_path)}, augment=FRESH)


def test_a_student_that_starts_from_a_given_stage_is_refused(tmp_path):
    for name in ("logits", "embedding"):
        (tmp_path / f"teacher.{name}.npy").touch()
    system = toy.make_matching_system()
    student = system.stages[-1]

    def init(key, batch, upstream):
        return student.init(key, batch, {"teacher": upstream["teacher"]})

    with pytest.raises(InputError, match="starts from the stage's variables"):
        choose(
            system=replace_stage(system, student._replace(init=init)),
            cache={"given": str(tmp_path)},
        )


def test_a_step_reads_pooled_shapes_in_float32():
    specs = {"t.tokens": ((6, 8), "bfloat16"), "t.mask": ((6,), "bool")}
    found = teacher.Teacher("cached", specs)
    assert read_specs(found, CacheConfig(form="bfloat16", pool=3)) == {
        "t.tokens": ((2, 8), "float32"),
        "t.mask": ((6,), "bool"),
    }
    assert read_specs(teacher.Teacher("memory", specs), CacheConfig()) == specs


@pytest.mark.slow
def test_a_run_on_disk_ends_as_one_in_memory(tmp_path, capsys):
    options = {
        "train": TrainConfig(epochs=2, batch_size=16, save_every_s=60.0),
        "rows": ("shuffled_teacher", "class_mean_teacher"),
    }
    plain = tiny_run.run(tmp_path / "plain", **options)
    options["augment"] = AugmentConfig(noise=0.5, num_views=2)
    memory = tiny_run.run(tmp_path / "memory", **options)
    assert [row["mean"] for row in plain] != [row["mean"] for row in memory]
    disk = tiny_run.run(
        tmp_path / "disk", **options, cache=CacheConfig(folder=str(tmp_path / "all"))
    )
    said = capsys.readouterr().out
    assert "teacher.kd_logits as float32" in said
    assert "relative RMS error 0" in said
    assert json.loads((tmp_path / "disk/teacher.json").read_text()) == {
        "system": "cached"
    }
    # A cache a fold: their teachers and windows differ.
    assert len(list((tmp_path / "all").iterdir())) == 2
    for a, b in zip(memory, disk, strict=True):
        assert a["model"] == b["model"]
        np.testing.assert_allclose(a["mean"], b["mean"], atol=1e-6)
