"""Penstock: streams from language models that you can trust.

The public names; each is imported when it is first used, so that `import penstock` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.canon.embedding import Embeddings
    from penstock.canon.errors import (
        AlreadyConsumed,
        Cancelled,
        ConfigError,
        ConnectError,
        ContentRefused,
        ContextTooLong,
        CursorLagged,
        EmptyReply,
        InvalidRequest,
        InvalidSchema,
        KeyRejected,
        NoTargetLeft,
        Overloaded,
        PenstockError,
        ProtocolError,
        RateLimited,
        RequestError,
        SchemaMismatch,
        ServerFault,
        StatusError,
        StreamedError,
        StreamingError,
        StreamingTimeout,
        TimedOut,
        ToolLimit,
        Truncated,
        Unsupported,
        UpstreamError,
    )
    from penstock.canon.events import (
        Annotation,
        BlockEnd,
        BlockStart,
        Delta,
        Finish,
        KeepAlive,
        Progress,
        Reasoning,
        Refusal,
        Start,
        Text,
        Timings,
        ToolCall,
        UsageUpdate,
    )
    from penstock.canon.model import Model
    from penstock.canon.price import Price
    from penstock.canon.request import Audio, File, Image, Message, Tool, ToolResult
    from penstock.canon.response import Response
    from penstock.canon.target import Secret, Target
    from penstock.canon.usage import Usage
    from penstock.catalogue.provider import Provider
    from penstock.client.client import (
        Client,
        aadapt,
        adapt,
        aembed,
        agenerate,
        amodels,
        arun_tools,
        astream,
        embed,
        generate,
        models,
        run_tools,
        stream,
    )
    from penstock.client.conversation import Messages, OneMessage
    from penstock.client.functions import FunctionTool, tool
    from penstock.client.hooks import Hooks, RequestSent, ResponseStarted, StreamEnd
    from penstock.client.replay import replay
    from penstock.client.stream import AsyncStream, Stream
    from penstock.client.target import ModelSpec, providers
    from penstock.client.tool_loop import ToolRun
    from penstock.policy.retry import Retry
    from penstock.streams.clocks import Timeouts

_HOMES = {
    "penstock.canon.embedding": "Embeddings",
    "penstock.canon.errors": (
        "AlreadyConsumed Cancelled ConfigError ConnectError ContentRefused ContextTooLong CursorLagged EmptyReply "
        "InvalidRequest InvalidSchema KeyRejected NoTargetLeft Overloaded PenstockError ProtocolError RateLimited "
        "RequestError SchemaMismatch ServerFault StatusError StreamedError StreamingError StreamingTimeout "
        "TimedOut ToolLimit Truncated Unsupported UpstreamError"
    ),
    "penstock.canon.events": (
        "Annotation BlockEnd BlockStart Delta Finish KeepAlive Progress Reasoning Refusal Start Text Timings ToolCall "
        "UsageUpdate"
    ),
    "penstock.canon.model": "Model",
    "penstock.canon.price": "Price",
    "penstock.canon.request": "Audio File Image Message Tool ToolResult",
    "penstock.canon.response": "Response",
    "penstock.canon.usage": "Usage",
    "penstock.catalogue.provider": "Provider",
    "penstock.client.client": (
        "Client aadapt adapt aembed agenerate amodels arun_tools astream embed generate models run_tools stream"
    ),
    "penstock.canon.target": "Secret Target",
    "penstock.client.conversation": "Messages OneMessage",
    "penstock.client.functions": "FunctionTool tool",
    "penstock.client.hooks": "Hooks RequestSent ResponseStarted StreamEnd",
    "penstock.client.replay": "replay",
    "penstock.client.stream": "AsyncStream Stream",
    "penstock.client.target": "ModelSpec providers",
    "penstock.client.tool_loop": "ToolRun",
    "penstock.policy.retry": "Retry",
    "penstock.streams.clocks": "Timeouts",
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AlreadyConsumed",
    "Annotation",
    "AsyncStream",
    "Audio",
    "BlockEnd",
    "BlockStart",
    "Cancelled",
    "Client",
    "ConfigError",
    "ConnectError",
    "ContentRefused",
    "ContextTooLong",
    "CursorLagged",
    "Delta",
    "Embeddings",
    "EmptyReply",
    "File",
    "Finish",
    "FunctionTool",
    "Hooks",
    "Image",
    "InvalidRequest",
    "InvalidSchema",
    "KeepAlive",
    "KeyRejected",
    "Message",
    "Messages",
    "Model",
    "ModelSpec",
    "NoTargetLeft",
    "OneMessage",
    "Overloaded",
    "PenstockError",
    "Price",
    "Progress",
    "ProtocolError",
    "Provider",
    "RateLimited",
    "Reasoning",
    "Refusal",
    "RequestError",
    "RequestSent",
    "Response",
    "ResponseStarted",
    "Retry",
    "SchemaMismatch",
    "Secret",
    "ServerFault",
    "Start",
    "StatusError",
    "Stream",
    "StreamEnd",
    "StreamedError",
    "StreamingError",
    "StreamingTimeout",
    "Target",
    "Text",
    "TimedOut",
    "Timeouts",
    "Timings",
    "Tool",
    "ToolCall",
    "ToolLimit",
    "ToolResult",
    "ToolRun",
    "Truncated",
    "Unsupported",
    "UpstreamError",
    "Usage",
    "UsageUpdate",
    "aadapt",
    "adapt",
    "aembed",
    "agenerate",
    "amodels",
    "arun_tools",
    "astream",
    "embed",
    "generate",
    "models",
    "providers",
    "replay",
    "run_tools",
    "stream",
    "tool",
]


def __getattr__(name: str) -> Any:
    home = _NAMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
