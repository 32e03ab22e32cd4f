"""How much of a machine a model is given, and what is said when that is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from penstock.canon.errors import ConfigError
from penstock.worker.gguf import ModelFile, read_model
from penstock.worker.llamacpp import demo_model
from penstock.worker.sizing import MIB, check_memory, free_memory, out_of_memory_kills, sizes, usable_cores

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024 * MIB


def a_model(**more: Any) -> ModelFile:
    """Eight billion parameters in four bits: 4.6 GiB, 128 KiB a token."""
    about = {
        "size_bytes": int(4.6 * GIB),
        "context_tokens": 131_072,
        "cache_bytes_per_token": 131_072,
        "vocabulary": 128_256,
    }
    return replace(read_model(demo_model()), **(about | more))


@pytest.mark.parametrize(
    ("memory", "context", "slots"),
    [(64 * GIB, 32_768, 4), (24 * GIB, 32_768, 3), (14 * GIB, 32_768, 1), (9 * GIB, 16_384, 1), (4 * GIB, 2048, 1)],
)
def test_the_context_comes_first_then_slots(memory: int, context: int, slots: int):
    found = sizes(a_model(), memory_bytes=memory)
    assert (found.context_tokens, found.slots) == (context, slots)


@pytest.mark.parametrize("memory", [5 * GIB, 9 * GIB, 24 * GIB, 200 * GIB])
def test_all_of_it_fits_with_the_prompts_it_keeps(memory: int):
    found = sizes(a_model(), memory_bytes=memory)
    assert found.prompt_cache_bytes >= 0
    if found.needed_bytes <= memory * 0.85:
        assert found.needed_bytes + found.prompt_cache_bytes <= memory


def test_what_is_said_counts():
    found = sizes(a_model(), memory_bytes=4 * GIB, context_tokens=8192, slots=3, threads=7, cores=2)
    assert (found.context_tokens, found.slots, found.threads) == (8192, 3, 7)
    assert found.needed_bytes > 4 * GIB


def test_one_core_is_left_for_the_streams():
    assert [sizes(a_model(), cores=cores).threads for cores in (1, 2, 8)] == [1, 1, 7]


def test_a_model_of_less_context_gets_no_more():
    assert sizes(a_model(context_tokens=4096), memory_bytes=64 * GIB).context_tokens == 4096


def test_a_context_beyond_the_models_is_refused_with_both_numbers():
    with pytest.raises(ConfigError) as raised:
        sizes(read_model(demo_model()), context_tokens=10_000)
    assert str(raised.value) == (
        "--ctx 10000 is more than the model's context, which is 8192 tokens. Use --ctx 8192 or less."
    )


def test_too_little_memory_is_said_with_both_numbers():
    check_memory("m", GIB, GIB)
    check_memory("m", GIB, None)
    with pytest.raises(ConfigError) as raised:
        check_memory("m", 9 * GIB, 2 * GIB)
    assert str(raised.value).startswith("m needs about 9,216 MiB of memory, and 2,048 MiB are free. Take a smaller")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_containers_limit_is_heeded(tmp_path: Path):
    machine = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   8192 kB\n"}
    assert free_memory(write(tmp_path, machine)) == 8 * MIB
    group = {
        "sys/fs/cgroup/memory.max": "4194304\n",
        "sys/fs/cgroup/memory.current": "3145728\n",
        "sys/fs/cgroup/memory.stat": "anon 12\ninactive_file 1048576\n",
    }
    assert free_memory(write(tmp_path, group)) == 2 * MIB
    assert free_memory(write(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})) == 8 * MIB
    assert free_memory(tmp_path / "nowhere") is None


def test_a_containers_share_of_the_processor_is_heeded(tmp_path: Path):
    assert usable_cores(tmp_path) >= 1
    assert usable_cores(write(tmp_path, {"sys/fs/cgroup/cpu.max": "100000 100000\n"})) == 1


def test_the_second_thread_of_a_core_is_no_core(tmp_path: Path):
    for number in range(256):
        write(tmp_path, {f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": "0-255\n"})
    assert usable_cores(tmp_path) == 1


def test_kills_for_memory_are_counted(tmp_path: Path):
    assert out_of_memory_kills(write(tmp_path, {"proc/vmstat": "nr_free_pages 5\noom_kill 3\n"})) == 3
    assert out_of_memory_kills(tmp_path / "nowhere") is None
