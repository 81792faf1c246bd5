"""The door for JSON: what is no JSON, and what is not of the stated shape."""

import dataclasses
import os
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from eegkd.errors import InputError
from eegkd.host import json_file
from eegkd.host.json_file import parse_json, read_json
from eegkd.host.shapes import fit


class Place(TypedDict):
    path: str
    size: NotRequired[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError(f"inner.rate is above 0; got {self.rate}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    classes: tuple[str, ...]
    num: Annotated[int, "words"] = 3
    edges: tuple[float, float] | None = None
    mode: Literal["a", "b"] = "a"
    whole: bool = False
    inner: Inner = Inner()
    place: Place | None = None
    table: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    other: Any = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"classes": "rest"}', "classes is 'rest', not a list of texts"),
        ('{"classes": ["a", 3]}', r"classes\[1\] is 3, not a text"),
        ('{"classes": [], "num": true}', "num is true, not a whole number"),
        ('{"classes": [], "num": 2.5}', "num is 2.5, not a whole number"),
        ('{"classes": [], "num": "3"}', "num is '3', not a whole number"),
        ('{"classes": [], "whole": 1}', "whole is 1, not true or false"),
        ('{"classes": [], "edges": [1]}', "edges is a list of 1, not a list of 2 num"),
        ('{"classes": [], "edges": [1, "2"]}', r"edges\[1\] is '2', not a number"),
        (
            '{"classes": [], "edges": {}}',
            "edges is an object, not a list of 2",
        ),
        ('{"classes": [], "mode": "c"}', "mode is 'c', not 'a' or 'b'"),
        ('{"classes": [], "inner": 3}', "inner is 3, not an object"),
        (
            '{"classes": [], "inner": {"rate": null}}',
            "inner.rate is null, not a num",
        ),
        ('{"classes": [], "inner": {"rate": -1}}', "inner.rate is above 0; got -1"),
        ('{"classes": [], "inner": {"rat": 1}}', "inner has an unknown field rat"),
        ('{"classes": [], "place": {}}', "place.path is missing"),
        (
            '{"classes": [], "place": {"path": []}}',
            "place.path is a list of 0",
        ),
        ('{"classes": [], "table": {"x": [1, "2"]}}', r"table.x\[1\] is '2'"),
        ("{}", "classes is missing"),
        ("[]", "it is a list of 0, not an object"),
        ("null", "it is null, not an object"),
    ],
)
def test_what_has_another_shape_is_named_with_its_place(tmp_path, text, said):
    file = tmp_path / "box.json"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"box\.json: .*{said}.*\. Mend it\.$"):
        read_json(file, Box, cure="Mend it.")


def test_what_fits_becomes_what_the_shape_says(tmp_path):
    file = tmp_path / "box.json"
    text = '{"classes": ["é"], "edges": [0, 1.5], "place": {"path": "p", "x": [1]}}'
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    want = Box(classes=("é",), edges=(0, 1.5), place={"path": "p", "x": [1]})  # type: ignore[typeddict-unknown-key]
    assert read_json(file, Box, cure="") == want
    assert fit(Any, {"a": [1]}) == {"a": [1]}
    assert fit(list[str], ["a"]) == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ('{"a": 1,}', "not JSON"),
        ("[" * 100_000, "not JSON that is read"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ('{"a": 1e999}', "1e999 is no number of 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "9999999… is no number of 64 bits"),
        ('{"a": 1, "b": {"x": 1, "x": 1}}', "'x' is there twice in one object"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path, text, said):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: it is .*{said}|a\.json: .*{said}"):
        read_json(file, cure="Mend it.")


def test_files_of_others_may_hold_what_python_writes():
    assert parse_json('{"a": Infinity, "b": 1, "b": 2}', strict=False)["b"] == 2
    most = 10**30
    assert parse_json(f'{{"model_max_length": {most}}}', strict=False) == {
        "model_max_length": most
    }
    with pytest.raises(ValueError, match="9… is no number that is read"):
        parse_json("9" * 5000, strict=False)


def test_what_is_no_file_of_text_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json: it cannot be read \(No such file"):
        read_json(file, cure="")
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match="no UTF-8 at byte 7"):
        read_json(file, cure="")
    with pytest.raises(InputError, match="it is no regular file"):
        read_json(tmp_path, cure="")
    monkeypatch.setattr(json_file, "MOST_BYTES", 8)
    file.write_text('{"a": 123}')
    with pytest.raises(InputError, match="it has 10 bytes, and 8 are read"):
        read_json(file, cure="")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="it is no regular file"):
        read_json(tmp_path / "a.json", cure="")
