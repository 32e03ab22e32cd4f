"""The llama.cpp engine: the real llama-server, inside this process, by the `xllamacpp` wheel (extra `worker`).

Continuous batching over slots, chat templates, tools and grammar are its own; we speak to it over loopback, with a key
that only this process knows. A crash in its C++ ends the process, which is why the worker is a process of its own.
"""

from __future__ import annotations

import os
import secrets
from importlib.resources import files
from pathlib import Path
from typing import Any

from penstock.canon.errors import ConfigError
from penstock.canon.target import Secret, Target

MAGIC = b"GGUF"
#: tokens per slot; a model trained on less is given less by llama.cpp itself
CONTEXT_TOKENS = 8192
SLOTS = 2


def demo_model() -> Path:
    """The tiny model that ships with the package: it speaks, ends its replies, and calls tools; it knows nothing."""
    return Path(str(files("penstock.worker") / "demo.gguf"))


class LlamaCpp:
    """`path` is a GGUF file. Raises `ConfigError` at once for what can be seen from outside."""

    def __init__(
        self,
        path: Path,
        *,
        model: str | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        slots: int = SLOTS,
        threads: int | None = None,
    ) -> None:
        check_model_file(path)
        self.path = path
        self.model = model or path.stem
        self._context_tokens = context_tokens
        self.slots = slots
        self._threads = threads or max(1, len(os.sched_getaffinity(0)) - 1)  # one is left for the streams
        self._key = Secret(secrets.token_urlsafe(24))
        self._server: Any = None

    def load(self) -> Target:
        try:
            import xllamacpp
        except ImportError as error:
            raise ConfigError(
                "The worker's engine is not installed.", fix="Install it: pip install 'penstock[worker]'."
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.model_alias = {self.model}
        params.n_parallel = self.slots
        params.n_ctx = self._context_tokens * self.slots  # llama.cpp splits it among the slots
        params.cpuparams.n_threads = self._threads
        params.cpuparams_batch.n_threads = self._threads
        params.n_threads_http = self.slots * 2 + 2
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [self._key.reveal()]
        params.endpoint_slots = True
        params.ui = False
        params.offline = True
        params.verbosity = -1
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigError(
                f"llama.cpp cannot load {self.path}.",
                fix="The file may be cut short, or of an architecture that this build does not know: "
                "compare its size with the original's.",
            ) from error
        return Target(
            upstream="engine",
            url=f"{self._server.listening_address}/v1",
            dialect="openai-chat",
            key=self._key,
            profile="llamacpp",
        )

    def stop(self) -> None:
        self._server = None


def check_model_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(
            f"Cannot read the model {path}: {error.strerror or error}.", fix="Give --model a GGUF file, or use --demo."
        ) from error
    if begins != MAGIC:
        raise ConfigError(f"{path} is not a GGUF file.", fix="Give --model a file that ends in .gguf.")
