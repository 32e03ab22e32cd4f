"""GGUF files by hand: a head of any content, and as many bytes of weights as it promises, or fewer."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    """Whole numbers as u32, texts as strings, lists of either as arrays."""
    if isinstance(given, str):
        return struct.pack("<I", 8) + string(given)
    if isinstance(given, list):
        kind = 8 if isinstance(given[0], str) else 4
        items = b"".join(string(it) if kind == 8 else struct.pack("<I", it) for it in given)
        return struct.pack("<IIQ", 9, kind, len(given)) + items
    return struct.pack("<II", 4, given)


LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "a model",
    "general.file_type": 15,
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": [f"t{k}" for k in range(2000)],
}
#: name, shape, type (F32), where its data begins
TENSORS = [("blk.0.attn_q.weight", (8, 8), 0, 0), ("blk.1.attn_q.weight", (8, 8), 0, 256), ("output", (8,), 0, 512)]


def write(
    path: Path,
    fields: dict[str, Any] | None = None,
    *,
    tensors: Any = TENSORS,
    version: int = 3,
    weights: int = 544,
) -> Path:
    """`fields` are laid over `LLAMA`'s."""
    said = LLAMA | (fields or {})
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(said))
    head += b"".join(string(key) + value(it) for key, it in said.items())
    for name, shape, kind, begins in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, begins)
    head += b"\0" * (-len(head) % 32)
    path.write_bytes(head + b"\0" * weights)
    return path
