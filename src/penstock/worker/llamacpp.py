"""The llama.cpp engine: the real llama-server, in a child process, by the `xllamacpp` wheel (extra `worker`).

Continuous batching over slots, chat templates, tools and grammar are its own; we speak to it over loopback, with a key
that this process and its child know. What can be seen of the model from outside is checked before anything is started.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import ConfigError, EngineCrashed, EngineOutOfMemory
from penstock.canon.target import Secret, Target
from penstock.worker.engine import Loaded
from penstock.worker.gguf import read_model
from penstock.worker.sizing import check_memory, free_memory, out_of_memory_kills, sizes, usable_cores

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from penstock.worker.engine import Tell

#: run as a file: it needs nothing of ours
PROGRAM = Path(__file__).with_name("llamacpp_process.py")
#: of one text, which llama.cpp works on at once, or not at all
EMBEDDED_TOKENS = 2048
#: what a child has to end after it was told to
STOP_S = 2.0
#: of the child's standard error; the reason of a failure is near its end
KEPT_BYTES = 16 * 1024


def demo_model() -> Path:
    """The tiny model that ships with the package: it speaks, ends its replies, and calls tools; it knows nothing."""
    return Path(str(files("penstock.worker") / "demo.gguf"))


class LlamaCpp:
    """`path` is a GGUF file. What is None is chosen (`worker.sizing`). Raises `ConfigError` at once for what can be
    seen from outside."""

    def __init__(
        self,
        path: Path,
        *,
        model: str | None = None,
        context_tokens: int | None = None,
        slots: int | None = None,
        threads: int | None = None,
        embedding: bool = False,
    ) -> None:
        self.file = read_model(path)
        self.model = model or path.stem
        self._memory_bytes = free_memory()
        self.sizes = sizes(
            self.file,
            context_tokens=context_tokens,
            slots=slots,
            threads=threads,
            memory_bytes=self._memory_bytes,
            cores=usable_cores(),
        )
        self.slots = self.sizes.slots
        self.embeds = min(EMBEDDED_TOKENS, self.sizes.context_tokens) if embedding else None
        self._key = Secret(secrets.token_urlsafe(24))
        self._process: Process | None = None
        self._said = b""
        self._listening: asyncio.Task[None] | None = None
        self._kills: int | None = None
        self._engine: dict[str, Any] = {"name": "llama.cpp"}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def load(self, tell: Tell) -> Target:
        await self.stop()
        self._kills = out_of_memory_kills()
        self._memory_bytes = free_memory()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from beside the program
            str(PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            start_new_session=True,  # a Ctrl-C is for its parent, who has streams to end first
        )
        self._listening = asyncio.get_running_loop().create_task(self._listen(process))
        assert process.stdin is not None
        with suppress(ConnectionError):  # it is gone already: its output says why
            process.stdin.write(json.dumps(self._settings()).encode() + b"\n")
            await process.stdin.drain()
        return await self._loading(process, tell)

    def _settings(self) -> dict[str, Any]:
        return {
            "files": [str(path) for path in self.file.files],
            "model": self.model,
            "key": self._key.reveal(),
            "embeds": self.embeds,
            "pooling": self.file.pooling,
            "memory_bytes": self._memory_bytes,
            "slots": self.sizes.slots,
            "context_tokens": self.sizes.context_tokens,
            "threads": self.sizes.threads,
            "needed_bytes": self.sizes.needed_bytes,
            "prompt_cache_bytes": self.sizes.prompt_cache_bytes,
        }

    async def _loading(self, process: Process, tell: Tell) -> Target:
        model, out = self.file, process.stdout
        assert out is not None
        async for line in out:
            said = json.loads(line)
            if "read" in said:
                layers = model.layers_within(said["read"]) if model.layer_ends else None
                tell(Loaded("reading", said["read"], model.size_bytes, layers, model.layers))
            elif "starting" in said:
                tell(Loaded("starting", model.size_bytes, model.size_bytes, model.layers, model.layers))
            elif "failed" in said:
                await process.wait()
                raise await self._failure(said["failed"])
            else:
                self._engine |= {"version": said["version"], "accelerators": said["accelerators"]}
                return Target(
                    upstream="engine",
                    url=f"{said['ready']}/v1",
                    dialect="openai-chat",
                    key=self._key,
                    profile="llamacpp",
                )
        raise crashed(await process.wait(), self._kills, out_of_memory_kills(), while_loading=True)

    async def _failure(self, kind: str) -> ConfigError:
        if kind == "not_installed":
            return ConfigError(
                "The worker's engine is not installed.", fix="Install it: pip install 'penstock[worker]'."
            )
        if kind == "memory":
            try:
                check_memory(self.model, self.sizes.needed_bytes, self._memory_bytes)
            except ConfigError as error:
                return error
        if self._listening is not None:
            await self._listening
        why = reason(self._said.decode("utf-8", "replace").splitlines())
        return ConfigError(
            f"llama.cpp cannot load {self.file.path} ({self.file.architecture}): {why}.",
            fix="A newer xllamacpp may know more models: pip install -U xllamacpp.",
        )

    async def _listen(self, process: Process) -> None:
        """Keep the last of its standard error. What it says while it serves is read, and not kept: it may hold
        what people said to the model."""
        assert process.stderr is not None
        self._said = b""
        while data := await process.stderr.read(KEPT_BYTES):
            if "version" not in self._engine:
                self._said = (self._said + data)[-KEPT_BYTES:]

    async def ended(self) -> EngineCrashed:
        assert self._process is not None, "it was loaded"
        return crashed(await self._process.wait(), self._kills, out_of_memory_kills())

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:  # it is loading, and hears nothing then
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._listening is not None:
            await self._listening

    def about(self) -> dict[str, Any]:
        model = self.file
        return {
            "engine": {**self._engine, "pid": self.pid},
            "model": self.model,
            "name": model.name,
            "architecture": model.architecture,
            "quantisation": model.quantisation,
            "parameters": model.parameters,
            "size_bytes": model.size_bytes,
            "layers": model.layers,
            "context_tokens": self.sizes.context_tokens,
            "context_trained": model.context_tokens,
            "slots": self.sizes.slots,
            "threads": self.sizes.threads,
            "embedding": self.embeds is not None,
        }


def crashed(
    code: int, kills_before: int | None, kills_after: int | None, *, while_loading: bool = False
) -> EngineCrashed:
    """Why an engine is gone: by its exit, and by whether the system has killed for memory meanwhile."""
    when = " while it loaded the model" if while_loading else ""
    if code == -signal.SIGKILL and kills_before is not None and kills_after is not None and kills_after > kills_before:
        return EngineOutOfMemory(
            f"The system killed the engine{when}, because memory had run out.",
            fix="Take a smaller --ctx, fewer --slots or a smaller model.",
        )
    how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with {code}"
    fix = "The file may be damaged, or memory short." if while_loading else "Ask again: it is started anew."
    return EngineCrashed(f"The engine {how}{when}.", fix=fix)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reason(said: list[str]) -> str:
    """llama.cpp's own words for why a load failed, to be shown: its first error, without time and place."""
    errors = [line.partition(" E ")[2] for line in said if " E " in line]
    for line in errors:
        _, found, why = line.partition("error loading model: ")
        if found:
            return why.strip().rstrip(".")
    return errors[0].partition(": ")[2].strip().rstrip(".") if errors else "it does not say why"
