"""The configuration's shape: every key, its default, and what it does. Loaded by `load`; nothing else reads it in.

Durations are written `500ms`, `5s`, `2m`, `30d` and held in seconds; sizes `100MiB` and held in bytes; `null` is no
limit. A duration is more than nothing: 0 is refused, because one would read it as either.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from penstock.canon.key import Count, Key
from penstock.canon.price import Price
from penstock.catalogue.provider import Capabilities

MIB = 1024 * 1024


class Duration(float):
    """Seconds."""


class Size(int):
    """Bytes."""


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens."""

    #: the address to listen on
    host: str = "127.0.0.1"
    #: the port; 0 takes a free one
    port: int = 8066
    #: processes that serve; a parent replaces one that ends
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    #: how long calls have to finish when the gateway is told to end
    drain: Duration = Duration(30)
    #: the largest request body
    max_body: Size = Size(100 * MIB)
    #: how long a client may take for a request's line and headers
    header_timeout: Duration | None = Duration(30)
    #: how long a client may take for a KiB of a request's body, or for its end
    body_timeout: Duration | None = Duration(30)
    #: who may ask; without keys only this machine may, and the gateway listens nowhere else
    keys: tuple[Key, ...] = ()
    #: a file of more keys, as `penstock keys` writes it; a change counts within a second
    keys_file: str | None = None
    #: pages that may ask from a browser: `https://app.example.com`, or `*` for any
    cors_origins: tuple[str, ...] = ()
    #: names that it may be called by, besides those of this machine; it asks for them while there are no keys
    hosts: tuple[str, ...] = ()


class Upstream(Struct, frozen=True, forbid_unknown_fields=True):
    """One server that answers calls."""

    #: the base URL; for most it ends in /v1
    url: str
    #: whose server it is: everything else that is not said here comes from the catalogue
    provider: str | None = None
    #: the language it speaks
    dialect: str = "openai-chat"
    #: what kind of server it is: `llamacpp` tells its context size, `openai` names its token limit differently
    profile: str | None = None
    #: the environment variable that holds its key, or several, of which the first that is set is used
    key_env: str | tuple[str, ...] | None = None
    #: where the key goes: the dialect's own place, `bearer`, a header's name, `none`, or `sigv4`
    auth: str | None = None
    #: headers sent with every request
    headers: dict[str, str] = {}
    #: what stands in {braces} in the url → the variable that says it
    placeholders: dict[str, str] = {}
    #: where its list of models is, when it is not at the dialect's own place: a path below the url, or a whole URL
    models_path: str | None = None
    #: what the tokens of a model, or of a pattern's models, cost
    cost: dict[str, Price] = {}
    #: what its models can do; what is not said is learnt
    capabilities: Capabilities = Capabilities()

    #: send it the client's own key, and none of ours
    forward_auth: bool = False
    #: calls that it gets at the same time; the next wait in line (limits.queue)
    concurrency: Count | None = None

    def __repr__(self) -> str:
        names = ", ".join(self.headers)  # their values may be keys
        return f"<Upstream {self.dialect} at {self.url}{f' with {names}' if names else ''}>"

    @property
    def key_variables(self) -> tuple[str, ...]:
        return (self.key_env,) if isinstance(self.key_env, str) else self.key_env or ()


class Clocks(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each part of a call may take."""

    #: until there is a connection
    connect: Duration | None = Duration(5)
    #: from sending the request to the first content
    first_content: Duration | None = Duration(120)
    #: between two pieces of content; pings do not count
    idle: Duration | None = Duration(60)
    #: without one byte
    silence: Duration | None = Duration(60)
    #: the whole call
    total: Duration | None = None
    #: how long a client may read nothing of what there is for it
    write: Duration | None = Duration(60)
    #: all of a reply that was not asked to stream
    document: Duration | None = Duration(600)


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """How often a target is asked again, while nothing of a reply has been handed on."""

    #: at each target, the first included; 1: never again
    attempts: Annotated[int, Meta(ge=1)] = 3
    #: the pause before the second; it doubles each time, and loses up to half of itself by chance
    backoff: Duration = Duration(0.5)
    #: the longest it becomes
    max_backoff: Duration = Duration(8)
    #: the longest wait that an upstream may ask for (Retry-After); one that asks for more is not asked again
    max_retry_after: Duration = Duration(30)


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    """When a target that does not work is passed by, where there is another."""

    #: calls that it fails in a row; null: it never is
    failures: Annotated[int, Meta(ge=1)] | None = 5
    #: how long, before one call at a time may try it again
    cooldown: Duration = Duration(30)


class Recovery(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of a stream that breaks after its first content."""

    #: `off`: the client is told; `restart`: the reply comes again from its beginning, behind a mark; `continue`: it
    #: goes on where it was cut, at a target that takes the beginning of a reply
    mode: Literal["off", "restart", "continue"] = "off"


class Weighted(Struct, frozen=True, forbid_unknown_fields=True):
    """A target and its share."""

    #: `upstream` or `upstream:model`
    to: str
    #: its share, beside those of the others
    weight: Annotated[float, Meta(gt=0)] = 1.0


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """Several targets for one name, and who is asked first; the others are left to fall back on."""

    #: each an `upstream`, an `upstream:model`, or one of these with its weight
    targets: tuple[str | Weighted, ...]
    #: `ordered`: as they stand; `weighted`: by chance, by weight; `least_busy`: by calls in flight, by weight
    choice: Literal["ordered", "weighted", "least_busy"] = "ordered"


class Heartbeat(Struct, frozen=True, forbid_unknown_fields=True):
    """What a streaming client sees while nothing happens."""

    #: how long a stream is quiet before its client is told that it lives; null: never
    interval: Duration | None = Duration(15)


class Streaming(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of streams that an upstream cannot give."""

    #: ask no upstream for a stream; clients get one all the same
    force_non_streaming: bool = False
    #: how long what was learnt of an upstream is believed
    capability_ttl: Duration = Duration(300)
    #: make a stream of a reply that did not come as one, instead of an error
    fallback: bool = True


class PerKey(Struct, frozen=True, forbid_unknown_fields=True):
    """What each key may do that says nothing itself."""

    #: calls at the same time
    concurrency: Count | None = None
    #: calls in a minute
    requests_per_minute: Count | None = None
    #: tokens in a minute, prompts and replies together, as upstreams report them
    tokens_per_minute: Count | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much at the same time, and in a minute. What is over it is answered 429, with the time to come back after."""

    #: calls at the same time, each from its admission to the end of its answer
    concurrency: Count | None = None
    #: calls that may wait for a place, in their order: at the gateway, and at each key and upstream that has a limit
    queue: Annotated[int, Meta(ge=0)] = 0
    #: how long a call may wait
    queue_wait: Duration | None = Duration(30)
    #: what one reply may be, as it comes from its upstream
    max_reply: Size = Size(256 * MIB)
    #: what each key may do that says nothing itself
    per_key: PerKey = field(default_factory=PerKey)


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """A line per request on standard output."""

    #: `pretty` for people, `compact` for grep, `json` for programs
    format: Literal["pretty", "compact", "json", "off"] = "pretty"
    #: with each line, why each figure has its value
    debug: bool = False


class Store(Struct, frozen=True, forbid_unknown_fields=True):
    """A SQLite file with a row per request; `path: null` keeps none."""

    #: the file; null keeps no records
    path: str | None = "penstock.db"
    #: how long a record stays
    keep: Duration = Duration(30 * 86400)


class Prometheus(Struct, frozen=True, forbid_unknown_fields=True):
    """Counters and histograms of all calls at `GET /metrics`."""

    #: whether there is such a page
    enabled: bool = True


class InfluxDB(Struct, frozen=True, forbid_unknown_fields=True):
    """A point `llm_request` per request in an InfluxDB, or in what takes its writes; `url: null` sends none."""

    #: the server's base URL
    url: str | None = None
    #: whose write API: 1, 2 or 3
    version: Literal[1, 2, 3] = 2
    #: version 2: the organisation
    org: str | None = None
    #: version 2: the bucket
    bucket: str | None = None
    #: versions 1 and 3: the database
    database: str | None = None
    #: the token is in this environment variable; version 1 also takes `user:password`
    token_env: str = "INFLUX_TOKEN"
    #: of the points' moments; coarser than `ns`, points of one model and moment overwrite each other
    precision: Literal["ns", "us", "ms", "s"] = "ns"
    #: the folder that keeps what could not be sent, until it can; null keeps nothing
    spool: str | None = "penstock-influxdb"
    #: how much it may hold; then the oldest goes
    spool_size: Size = Size(64 * MIB)


class OpenTelemetry(Struct, frozen=True, forbid_unknown_fields=True):
    """Spans and metrics by the conventions for generative AI, to a collector; `endpoint: null` sends none."""

    #: the collector's URL: http://127.0.0.1:4318, for grpc http://127.0.0.1:4317
    endpoint: str | None = None
    #: how OTLP is sent
    protocol: Literal["http", "grpc"] = "http"
    #: put what was asked and answered on the spans: whoever reads the traces reads the conversations
    content: bool = False


class Telemetry(Struct, frozen=True, forbid_unknown_fields=True):
    """Where records go."""

    #: a line per request on standard output
    log: Log = field(default_factory=Log)
    #: a row per request in SQLite
    store: Store = field(default_factory=Store)
    #: the page that Prometheus reads
    prometheus: Prometheus = field(default_factory=Prometheus)
    #: points that are sent to InfluxDB
    influxdb: InfluxDB = field(default_factory=InfluxDB)
    #: spans and metrics that are sent to a collector
    opentelemetry: OpenTelemetry = field(default_factory=OpenTelemetry)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of it."""

    #: where the gateway listens
    server: Server = field(default_factory=Server)
    #: a file of providers, laid over the catalogue
    providers: str | None = None
    #: the servers that answer calls, by names of your own
    upstreams: dict[str, Upstream] = {}
    #: what clients may name (`*` and `claude-*` are patterns) → `upstream` or `upstream:model`, a list of those, each
    #: for when the one before it fails, or a mapping that says how to choose
    models: dict[str, str | tuple[str, ...] | Spread] = {}
    #: how long each part of a call may take
    timeouts: Clocks = field(default_factory=Clocks)
    #: how often a target is asked again
    retry: Retry = field(default_factory=Retry)
    #: when a target that does not work is passed by
    breaker: Breaker = field(default_factory=Breaker)
    #: what becomes of a stream that breaks after its first content
    recovery: Recovery = field(default_factory=Recovery)
    #: refuse a request with a field that its upstream's dialect does not have, instead of leaving the field out
    strict: bool = False
    #: what a waiting stream's client sees
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    #: what becomes of streams that an upstream cannot give
    streaming: Streaming = field(default_factory=Streaming)
    #: how much at the same time, and in a minute
    limits: Limits = field(default_factory=Limits)
    #: where records go
    telemetry: Telemetry = field(default_factory=Telemetry)
