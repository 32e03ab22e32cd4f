"""A GGUF file's head → what its owner should know before anything loads it.

In: a path. Out: a `ModelFile`: architecture, quantisation, context, layers, and what memory a token of context takes.
The weights are not read and no token of the vocabulary is kept. A file that is none, or whose tensors lie beyond its
end, is a `ConfigError` of one sentence. (The format: github.com/ggml-org/ggml, docs/gguf.md.)
"""

from __future__ import annotations

import mmap
import re
from math import prod
from struct import Struct as Layout
from struct import error as LayoutError
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
#: more than any model has; a head that claims more is no head
MAX_COUNT = 1_000_000
#: of a folder's models, in an error
MAX_NAMES = 8

#: value type → its layout; 8 is a string, 9 an array
_VALUES = {
    0: Layout("<B"), 1: Layout("<b"), 2: Layout("<H"), 3: Layout("<h"), 4: Layout("<I"), 5: Layout("<i"),
    6: Layout("<f"), 7: Layout("<?"), 10: Layout("<Q"), 11: Layout("<q"), 12: Layout("<d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_U32, _U64 = _VALUES[4], _VALUES[10]

#: tensor type → (elements in a block, bytes in a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip

#: `general.file_type` → its name
_QUANTISATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip

#: a model that is no model to talk to: the eyes of one
_PROJECTOR = "mmproj"

_LAYER = re.compile(r"blk\.(\d+)\.")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class ModelFile(Struct, frozen=True, kw_only=True):
    """What is None nobody has said. `layer_ends`: for each layer the byte at which the last of its tensors ends."""

    path: Path
    #: itself, and the further parts of a model that is in several
    files: tuple[Path, ...]
    architecture: str
    size_bytes: int
    name: str | None = None
    quantisation: str | None = None
    parameters: int | None = None
    context_tokens: int | None = None
    layers: int | None = None
    layer_ends: tuple[int, ...] = ()
    #: of keys and values in half precision, per token of context
    cache_bytes_per_token: int | None = None
    vocabulary: int | None = None
    pooling: int | None = None

    def layers_within(self, read_bytes: int) -> int:
        """How many layers lie whole in the file's first `read_bytes`."""
        return sum(end <= read_bytes for end in self.layer_ends)


def read_model(path: Path) -> ModelFile:
    """Raises `ConfigError`: the file cannot be read, is no GGUF file, or is cut short. The parts of one model
    (`-00001-of-…`) are counted together, and named by their first."""
    model = _read(path)
    shard = _SHARD.search(path.name)
    if shard is None:
        return model
    start, count = path.name[: shard.start()], int(shard[2])
    if int(shard[1]) != 1:
        raise ConfigError(
            f"{path} is not the first part of its model.", fix=f"Give --model {start}-00001-of-{shard[2]}.gguf."
        )
    rest = [_read(path.with_name(f"{start}-{number:05}-of-{shard[2]}.gguf")) for number in range(2, count + 1)]
    # Its layers lie in several files: they are not told one by one.
    return replace(
        model,
        files=(path, *(part.path for part in rest)),
        size_bytes=model.size_bytes + sum(part.size_bytes for part in rest),
        parameters=(model.parameters or 0) + sum(part.parameters or 0 for part in rest),
        layer_ends=(),
    )


def find_model(given: Path) -> Path:
    """A file as it is; of a folder its one model, in one part or several. Raises `ConfigError` where there is another
    number of them than one."""
    if not given.is_dir():
        return given
    found = sorted(
        path
        for path in given.glob("*.gguf")
        if not path.name.startswith(_PROJECTOR) and ((part := _SHARD.search(path.name)) is None or int(part[1]) == 1)
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"There is no GGUF file in {given}.", fix="Give --model a file that ends in .gguf.")
    names = ", ".join(path.name for path in found[:MAX_NAMES])
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    raise ConfigError(f"There are {len(found)} models in {given}: {names}{more}.", fix="Give --model one of them.")


def _read(path: Path) -> ModelFile:
    fix = "Give --model a GGUF file, or use --demo."
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ConfigError(f"{path} is not a GGUF file.", fix="Give --model a file that ends in .gguf.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Head(path, data).model()
    except OSError as error:
        raise ConfigError(f"Cannot read the model {path}: {error.strerror or error}.", fix=fix) from error
    except (LayoutError, IndexError) as error:
        raise _cut_short(path, None) from error


def _cut_short(path: Path, needed: int | None) -> ConfigError:
    size = path.stat().st_size
    what = f"it has {size:,} bytes of {needed:,}" if needed is not None else f"its {size:,} bytes end inside its head"
    return ConfigError(f"{path} is cut short: {what}.", fix="Download it again.")


class _Head:
    """Reads on from `at`."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = len(MAGIC)

    def model(self) -> ModelFile:
        version = self._number(_U32)
        if version not in VERSIONS:
            form = "another byte order" if version > 0xFFFF else f"version {version} of GGUF"
            raise ConfigError(f"{self._path} is written in {form}.", fix="Convert it anew, with a current llama.cpp.")
        tensors, fields = self._count(_U64), self._count(_U64)
        said: dict[str, Any] = {self._string(): self._value(self._number(_U32)) for _ in range(fields)}
        alignment = said.get("general.alignment") or 32
        ends: dict[int, int] = {}
        parameters = last = 0
        for _ in range(tensors):
            name = self._string()
            shape = [self._number(_U64) for _ in range(self._count(_U32))]
            kind, begins = self._number(_U32), self._number(_U64)
            elements = prod(shape)
            parameters += elements
            block, size = _BLOCKS.get(kind, (1, 0))
            end = begins + elements // block * size
            last = max(last, end)
            layer = _LAYER.match(name)
            if layer is not None:
                ends[int(layer[1])] = max(ends.get(int(layer[1]), 0), end)
        weights = (self._at + alignment - 1) // alignment * alignment
        if weights + last > len(self._data):
            raise _cut_short(self._path, weights + last)
        return _described(
            self._path, said, len(self._data), parameters, tuple(weights + ends[number] for number in sorted(ends))
        )

    def _number(self, layout: Layout) -> int:
        at = self._at
        self._at = at + layout.size
        value: int = layout.unpack_from(self._data, at)[0]
        return value

    def _count(self, layout: Layout) -> int:
        found = self._number(layout)
        if found > MAX_COUNT:
            raise ConfigError(f"{self._path} is not a GGUF file: its head makes no sense.", fix="Download it again.")
        return found

    def _span(self, size: int) -> int:
        """Pass over `size` bytes; where they begin."""
        at = self._at
        self._at = at + size
        if self._at > len(self._data):
            raise IndexError
        return at

    def _string(self) -> str:
        size = self._number(_U64)
        at = self._span(size)
        return self._data[at : at + size].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        """A scalar or a string; of an array its numbers where they are few, else its length."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(self._layout(kind))
        inner, count = self._number(_U32), self._number(_U64)
        if inner == _STRING:
            for _ in range(count):
                self._span(self._number(_U64))
            return Length(count)
        layout = self._layout(inner)
        if count > 1024:  # a number per layer is of interest, one per word is not
            self._span(layout.size * count)
            return Length(count)
        return [self._number(layout) for _ in range(count)]

    def _layout(self, kind: int) -> Layout:
        layout = _VALUES.get(kind)
        if layout is None:
            raise ConfigError(f"{self._path} is not a GGUF file: its head makes no sense.", fix="Download it again.")
        return layout


class Length(int):
    """Of an array that was passed over."""


def _described(path: Path, said: dict[str, Any], size: int, parameters: int, layer_ends: tuple[int, ...]) -> ModelFile:
    architecture = str(said.get("general.architecture", "unknown"))

    def of(key: str) -> Any:
        return said.get(f"{architecture}.{key}")

    tokens = said.get("tokenizer.ggml.tokens")
    return ModelFile(
        path=path,
        files=(path,),
        architecture=architecture,
        size_bytes=size,
        name=said.get("general.name"),
        quantisation=_QUANTISATIONS.get(said.get("general.file_type", -1)),
        parameters=parameters,
        context_tokens=of("context_length"),
        layers=of("block_count") or len(layer_ends) or None,
        layer_ends=layer_ends,
        cache_bytes_per_token=_cache_bytes(of),
        vocabulary=of("vocab_size") or (int(tokens) if isinstance(tokens, Length) else None),
        pooling=of("pooling_type"),
    )


def _cache_bytes(of: Any) -> int | None:
    """Keys and values of all layers. Layers that see a window only, or none, take less: this is the most."""
    layers, heads, width = of("block_count"), of("attention.head_count"), of("embedding_length")
    if not layers or not heads or not width:
        return None
    most = max(heads) if isinstance(heads, list) else heads
    shared = of("attention.head_count_kv")
    if shared is None:
        shared = heads
    caching = sum(shared) if isinstance(shared, list) else shared * layers
    a_head = width // most if most else 0
    return int(caching * ((of("attention.key_length") or a_head) + (of("attention.value_length") or a_head)) * 2)
