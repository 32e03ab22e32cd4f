"""llama.cpp in a process of its own. The program is this file; it imports nothing of ours.

In, on standard input: one line of settings (`Settings` of `worker.llamacpp`, as JSON); then nothing, and its end is the
order to end. Out, on standard output: a JSON object per line: `{"read": bytes}` while the file is read,
`{"starting": true}`, then `{"ready": url, "version": …}` or `{"failed": kind}`. What llama.cpp says goes to standard
error. It keeps Python to itself while it loads, which is one reason for this process; that it can crash is the other.

The file is read once from its beginning to its end before llama.cpp maps it: a disk is fastest so, and it is the only
part of a load that tells how far it is. What the system still holds of it is passed over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

#: read at once, and looked at for being held already
BLOCK_BYTES = 1 << 20
#: between two words on how far it is
TELL_EVERY_S = 0.1

_out = -1


def main() -> None:
    global _out
    _out = os.dup(1)
    os.dup2(2, 1)  # whatever llama.cpp prints is not for our reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever started this one ends it
    settings = json.loads(_line())
    read = 0
    for path in settings["files"]:
        read = read_through(path, read)
    tell(starting=True)
    try:
        import xllamacpp
    except ImportError:
        tell(failed="not_installed")
        return
    devices = xllamacpp.get_device_info()
    kind = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    if all(device["type"] == kind for device in devices) and _is_short(settings):
        tell(failed="memory")
        return
    try:
        server = xllamacpp.Server(params(xllamacpp, settings))
    except (RuntimeError, ValueError, OverflowError) as error:
        sys.stderr.write(f" E {error}\n")
        tell(failed="load")
        return
    accelerators = [device["description"] for device in devices if device["type"] != kind]
    tell(ready=server.listening_address, version=xllamacpp.__version__, accelerators=accelerators)
    while os.read(0, 4096):
        pass
    os._exit(0)  # what runs is cut off: nobody is there to hear it


def params(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    given = xllamacpp.CommonParams()
    given.model.path = settings["files"][0]
    given.model_alias = {settings["model"]}
    given.n_parallel = settings["slots"]
    given.n_ctx = settings["context_tokens"] * settings["slots"]  # llama.cpp splits it among the slots
    given.cpuparams.n_threads = settings["threads"]
    given.cpuparams_batch.n_threads = settings["threads"]
    given.n_threads_http = settings["slots"] * 2 + 2
    given.cache_ram_mib = settings["prompt_cache_bytes"] >> 20
    given.hostnames = ["127.0.0.1"]
    given.port = 0
    given.api_keys = [settings["key"]]
    given.endpoint_slots = True
    given.endpoint_metrics = True
    given.ui = False
    given.offline = True
    given.verbosity = 1  # errors: the reason of a load that failed is among them
    if settings["embeds"] is not None:
        given.embedding = True
        given.kv_unified = True  # without it, texts of several lengths in one batch get each other's numbers (2026-11)
        given.kv_unified_per_slot = settings["context_tokens"]
        given.n_batch = given.n_ubatch = settings["embeds"]  # a text is worked on at once, or not at all
        if settings["pooling"] is None:  # it was not made for embeddings, and can be asked for them all the same
            given.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return given


def read_through(path: str, before: int = 0) -> int:
    """Have the system hold as much of the file as it will, and say how far it is; `before` bytes were other files'."""
    buffer = bytearray(BLOCK_BYTES)
    told = time.monotonic()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, BLOCK_BYTES):
            if not _is_held(file.fileno(), at):
                file.seek(at)
                file.readinto(buffer)
            now = time.monotonic()
            if now - told >= TELL_EVERY_S:
                told = now
                tell(read=before + at)
    tell(read=before + size)
    return before + size


def _is_held(fd: int, at: int) -> bool:
    """Whether the system has this part of a file in memory; where it does not say, it has not."""
    now = getattr(os, "RWF_NOWAIT", None)
    if now is None:
        return False
    try:
        return os.preadv(fd, [bytearray(1)], at, now) == 1
    except OSError:  # BlockingIOError: it would have to be read; others: not this file system's
        return False


def _is_short(settings: dict[str, Any]) -> bool:
    free = settings["memory_bytes"]
    return free is not None and settings["needed_bytes"] > free


def tell(**said: Any) -> None:
    os.write(_out, json.dumps(said).encode() + b"\n")


def _line() -> bytes:
    """Byte by byte, so that nothing behind it is kept in a buffer."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            os._exit(0)
        line += data
    return line


if __name__ == "__main__":
    main()
