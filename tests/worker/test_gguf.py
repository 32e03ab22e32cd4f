"""What a GGUF file's head tells, and files that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import ConfigError
from penstock.worker.gguf import find_model, read_model
from penstock.worker.llamacpp import demo_model
from tests.worker.gguf_files import TENSORS, write

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_model():
    model = read_model(demo_model())
    assert (model.architecture, model.quantisation, model.context_tokens, model.layers) == ("llama", "Q8_0", 8192, 4)
    assert model.size_bytes == demo_model().stat().st_size
    assert model.parameters == 919_424
    assert model.layers_within(model.size_bytes) == 4
    assert model.layers_within(0) == 0


def test_what_a_head_says(tmp_path: Path):
    model = read_model(write(tmp_path / "m.gguf"))
    assert (model.name, model.quantisation, model.vocabulary) == ("a model", "Q4_K_M", 2000)
    # two layers, two heads of 16 each, keys and values, two bytes
    assert model.cache_bytes_per_token == 2 * 2 * (16 + 16) * 2
    ends = [model.layers_within(size) for size in (0, model.size_bytes - 288, model.size_bytes - 32)]
    assert ends == [0, 1, 2]


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path):
    path = write(tmp_path / "m.gguf", {"llama.attention.head_count_kv": [2, 0]})
    assert read_model(path).cache_bytes_per_token == 2 * (16 + 16) * 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "is not a GGUF file"),
        (lambda path: path.write_bytes(b"GGML" + b"\0" * 90), "is not a GGUF file"),
        (lambda path: path.write_bytes(b"GGUF"), "is cut short: its 4 bytes end inside its head"),
        (lambda path: write(path, weights=543), "is cut short: it has 25,983 bytes of 25,984"),
        (lambda path: write(path, version=1), "is written in version 1 of GGUF"),
        (lambda path: write(path, version=3 << 24), "is written in another byte order"),
        (lambda path: path.write_bytes(write(path).read_bytes()[:8] + b"\xff" * 60), "its head makes no sense"),
        (lambda path: path.mkdir(), "Cannot read the model"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(make: Any, said: str, tmp_path: Path):
    path = tmp_path / "m.gguf"
    make(path)
    with pytest.raises(ConfigError) as raised:
        read_model(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.fix is not None


@settings(max_examples=300)
@given(data=st.data())
def test_no_file_is_more_than_one_typed_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory):
    """Any head, cut anywhere, with any bytes changed: read, or refused."""
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    fields = {"tokenizer.ggml.tokens": ["a"] * 1100}
    raw = bytearray(write(path, fields).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        model = read_model(path)
    except ConfigError:
        return
    assert model.size_bytes <= len(raw)


def test_parts_of_one_model_are_one(tmp_path: Path):
    for number in (1, 2, 3):
        write(tmp_path / f"big-0000{number}-of-00003.gguf", tensors=TENSORS[number - 1 : number])
    model = read_model(find_model(tmp_path))
    assert [path.name for path in model.files] == [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert model.size_bytes == sum(path.stat().st_size for path in model.files)
    assert model.parameters == 64 + 64 + 8
    (tmp_path / "big-00003-of-00003.gguf").unlink()
    with pytest.raises(ConfigError, match="big-00003-of-00003"):
        read_model(tmp_path / "big-00001-of-00003.gguf")
    with pytest.raises(ConfigError, match="Give --model big-00001-of-00003"):
        read_model(tmp_path / "big-00002-of-00003.gguf")


def test_a_folder_has_one_model_or_none_is_chosen(tmp_path: Path):
    with pytest.raises(ConfigError, match="There is no GGUF file in"):
        find_model(tmp_path)
    write(tmp_path / "mmproj-m.gguf")
    path = write(tmp_path / "m.gguf")
    assert find_model(tmp_path) == path == find_model(path)
    write(tmp_path / "n.gguf")
    with pytest.raises(ConfigError, match=r"There are 2 models in .*: m\.gguf, n\.gguf\. Give --model one of them\."):
        find_model(tmp_path)
