"""How much of this machine a model is given: threads, tokens of context, slots. Decides, and touches nothing.

What the caller says counts; the rest is chosen so that it fits: first the context, because agents need a long one, then
slots, at the most `MOST_SLOTS`. Figures of memory are estimates: weights, keys and values of every slot, and what a
batch needs to be worked on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from penstock.worker.gguf import ModelFile

#: what an agent needs for its instructions, its tools and some files; more is given to who asks for it
CONTEXT_TOKENS = 32_768
LEAST_CONTEXT_TOKENS = 2_048
MOST_SLOTS = 4
#: of the memory that there is; the rest is the system's, and room for error
SHARE = 0.85

MIB = 1 << 20
#: one batch of tokens, as llama.cpp works on them
BATCH_TOKENS = 512
ENGINE_BYTES = 64 * MIB
#: prompts that llama.cpp keeps to go on from; it may be that much
PROMPT_CACHE_BYTES = 8192 * MIB


class Sizes(Struct, frozen=True, kw_only=True):
    """`context_tokens` is each slot's; `needed_bytes` about what all of it takes; `prompt_cache_bytes` beyond it."""

    context_tokens: int
    slots: int
    threads: int
    needed_bytes: int
    prompt_cache_bytes: int = 0


def sizes(
    model: ModelFile,
    *,
    context_tokens: int | None = None,
    slots: int | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
    cores: int = 1,
) -> Sizes:
    """`memory_bytes`: what is free of the machine's; None: nobody knows, and little is taken.

    Raises `ConfigError` for a context beyond what the model was trained on. That it fits is not checked here: who has
    an accelerator needs less (`check_memory`).
    """
    trained = model.context_tokens
    if context_tokens is not None and trained is not None and context_tokens > trained:
        raise ConfigError(
            f"--ctx {context_tokens} is more than the model's context, which is {trained} tokens.",
            fix=f"Use --ctx {trained} or less.",
        )
    fixed = model.size_bytes + ENGINE_BYTES + BATCH_TOKENS * 4 * (model.vocabulary or 0)
    per_token = model.cache_bytes_per_token or 0

    def needs(tokens: int, count: int) -> int:
        return fixed + tokens * count * per_token

    limit = memory_bytes * SHARE if memory_bytes is not None else fixed + 1024 * MIB
    tokens = context_tokens or min(trained or CONTEXT_TOKENS, CONTEXT_TOKENS)
    while context_tokens is None and tokens > LEAST_CONTEXT_TOKENS and needs(tokens, slots or 1) > limit:
        tokens = max(tokens // 2, LEAST_CONTEXT_TOKENS)
    count = slots or next((some for some in range(MOST_SLOTS, 1, -1) if needs(tokens, some) <= limit), 1)
    needed = needs(tokens, count)
    left = int(max(limit - needed, 0))
    return Sizes(
        context_tokens=tokens,
        slots=count,
        threads=threads or max(1, cores - 1),  # one is left for the streams
        needed_bytes=needed,
        prompt_cache_bytes=min(left // 2, PROMPT_CACHE_BYTES),
    )


def check_memory(model: str, needed_bytes: int, memory_bytes: int | None) -> None:
    """Raises `ConfigError` when the machine has not what the model needs."""
    if memory_bytes is not None and needed_bytes > memory_bytes:
        raise ConfigError(
            f"{model} needs about {_mib(needed_bytes)} of memory, and {_mib(memory_bytes)} are free.",
            fix="Take a smaller --ctx, fewer --slots or a smaller model, or end other programs.",
        )


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"


# --- the machine ------------------------------------------------------------------------------------------------------


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: not the second thread of one, and not beyond its container's share."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len(allowed)
    with suppress(OSError, ValueError):
        seen = {_core(root, number) for number in allowed}
        cores = len(seen)
    with suppress(OSError, ValueError):
        share, _, period = (root / "sys/fs/cgroup/cpu.max").read_text().partition(" ")
        cores = min(cores, max(1, round(int(share) / int(period))))
    return max(1, cores)


def _core(root: Path, number: int) -> str:
    """What all threads of one core have in common."""
    return (root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text().strip()


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a new program could have, within the limit of this one's container; None where nobody says."""
    found: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        group = root / "sys/fs/cgroup"
        limit = int((group / "memory.max").read_text())
        # What was read of files is given back when memory is wanted.
        idle = _figure(group / "memory.stat", "inactive_file") or 0
        found.append(max(0, limit - int((group / "memory.current").read_text()) + idle))
    return min(found) if found else None


def out_of_memory_kills(root: Path = Path("/")) -> int | None:
    """How many processes the system has killed for memory since it began; None where it does not count."""
    try:
        return _figure(root / "proc/vmstat", "oom_kill")
    except (OSError, ValueError):
        return None


def _figure(path: Path, name: str) -> int | None:
    lines = (line.partition(" ") for line in path.read_text().splitlines())
    return next((int(value) for word, _, value in lines if word == name), None)
