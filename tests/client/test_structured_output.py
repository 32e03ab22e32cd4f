"""Replies that must be values: what the model is told in each dialect, what comes back, and what does not fit."""

from __future__ import annotations

import datetime
import enum
import json
from dataclasses import dataclass, field
from typing import Any, TypedDict

import jsonschema
import msgspec
import pydantic
import pytest

import penstock
from penstock.client.output import Shape
from penstock.client.schema import is_strict
from penstock.dialects import client_dialect
from penstock.testing import Call, Reply, Turns, Upstream

NOWHERE = "http://127.0.0.1:9/v1"
DIALECTS = ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama"]


class Kind(enum.Enum):
    TOWN = "town"
    CITY = "city"


class City(msgspec.Struct):
    name: str
    people: int
    kind: Kind = Kind.CITY
    founded: datetime.date | None = None


@dataclass
class Trip:
    stops: list[City]
    notes: list[str] = field(default_factory=list)


class Point(TypedDict):
    x: float
    y: float


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=5)
    home: Address | None = None


class Address(pydantic.BaseModel):
    street: str


Person.model_rebuild()


class Tree(msgspec.Struct):
    value: int
    inner: list[Tree] = []


PARIS = {"name": "Paris", "people": 2_100_000, "kind": "city", "founded": None}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}

CASES: list[tuple[Any, Any, Any]] = [
    (City, PARIS, City("Paris", 2_100_000)),
    (City, {"name": "Rome", "people": 1, "kind": "town", "founded": "0753-04-21"},
     City("Rome", 1, Kind.TOWN, datetime.date(753, 4, 21))),
    (Trip, {"stops": [PARIS], "notes": ["x"]}, Trip([City("Paris", 2_100_000)], ["x"])),
    (Point, {"x": 1, "y": 2.5}, {"x": 1, "y": 2.5}),
    (Person, {"name": "Ann", "home": {"street": "Low St"}}, Person(name="Ann", home=Address(street="Low St"))),
    (Tree, {"value": 1, "inner": [{"value": 2, "inner": []}]}, Tree(1, [Tree(2)])),
    (SCHEMA, {"name": "Ann", "age": 3}, {"name": "Ann", "age": 3}),
    (list[City], {"value": [PARIS]}, [City("Paris", 2_100_000)]),
    (list[Person], {"value": [{"name": "Ann", "home": None}]}, [Person(name="Ann")]),
    (int, {"value": 3}, 3),
    (City | None, {"value": None}, None),
    (Kind, {"value": "town"}, Kind.TOWN),
    ({"type": "array", "items": {"type": "integer"}}, {"value": [1, 2]}, [1, 2]),
    (dict[str, int], {"a": 1}, {"a": 1}),
]  # fmt: skip


def says(value: Any, **more: Any) -> Reply:
    return Reply(text=value if isinstance(value, str) else json.dumps(value), **more)


def asked(schema: Any, reply: Reply, dialect: str = "openai-chat") -> tuple[penstock.Response, Upstream]:
    with Upstream(reply) as upstream:
        return (
            penstock.generate("here:m", "?", schema=schema, base_url=upstream.url_for(dialect), dialect=dialect),
            upstream,
        )


@pytest.mark.parametrize(("schema", "said", "value"), CASES)
def test_a_reply_is_the_value_that_was_asked_for(schema: Any, said: Any, value: Any) -> None:
    response, upstream = asked(schema, says(said))
    assert response.parsed == value
    assert type(response.parsed) is type(value)
    sent = json.loads(upstream.seen[0].body)["response_format"]["json_schema"]["schema"]
    jsonschema.Draft202012Validator.check_schema(sent)
    assert sent["type"] == "object"
    assert jsonschema.Draft202012Validator(sent).is_valid(said)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_is_told_the_schema_in_its_way(dialect: str) -> None:
    response, upstream = asked(City, says(PARIS), dialect)
    assert response.parsed == City("Paris", 2_100_000)
    seen = upstream.seen[0]
    request = client_dialect(dialect).parse_request(seen.body, seen.path)
    assert request.output is not None
    assert request.output.kind == "schema"
    assert request.output.schema is not None
    assert set(request.output.schema["properties"]) == {"name", "people", "kind", "founded"}


@pytest.mark.parametrize("schema", [City, Trip, Address, Tree, list[City], int, City | None, Kind])
def test_a_types_schema_is_one_that_a_provider_can_hold_a_model_to(schema: Any) -> None:
    shape = Shape(schema)
    assert shape.format.strict is True, shape.schema
    text = json.dumps(shape.schema)
    assert '"default"' not in text

    def look(node: Any) -> None:
        if isinstance(node, dict):
            if "properties" in node:
                assert node["required"] == list(node["properties"])
                assert node["additionalProperties"] is False
            for each in node.values():
                look(each)
        elif isinstance(node, list):
            for each in node:
                look(each)

    look(shape.schema)


@pytest.mark.parametrize("schema", [dict[str, int], tuple[int, str], Person, SCHEMA, list[Any]])
def test_what_no_provider_can_hold_a_model_to_is_asked_for_all_the_same(schema: Any) -> None:
    assert Shape(schema).format.strict is None


def test_a_schema_of_the_programs_own_is_sent_as_it_is() -> None:
    assert Shape(SCHEMA).schema == SCHEMA
    closed = {**SCHEMA, "required": ["name", "age"], "additionalProperties": False}
    assert Shape(closed).format.strict is True
    assert not is_strict({**closed, "oneOf": []})


@pytest.mark.parametrize("text", ["```json\n{}\n```", "```\n{}\n```\n", "  {}\n", "\ufeff{}"])
def test_a_fence_round_the_value_is_no_part_of_it(text: str) -> None:
    assert asked(City, says(text.replace("{}", json.dumps(PARIS))))[0].parsed == City("Paris", 2_100_000)


WRONG: list[tuple[Any, str, str]] = [
    (City, '{"name":"Paris"}', "required field `people`"),
    (City, '{"name":"Paris","people":"SECRET"}', r"Expected `int`, got `str` - at `\$.people`"),
    (City, '{"name":"Paris","people":1,"kind":"SECRET"}', r"Invalid enum value - at `\$.kind`"),
    (City, '{"name":"Paris","people":1,"founded":"SECRET"}', r"at `\$.founded`"),
    (City, "SECRET words", "no JSON"),
    (City, '{"name":"Par', "no JSON"),
    (City, "", "no JSON"),
    (Person, '{"name":"SECRET"}', r"at most 5 characters - at `\$.name`"),
    (SCHEMA, '{"name":"SECRET","age":-1}', r"`minimum` is not kept at `\$.age` \(it wants 0\)"),
    (SCHEMA, '{"SECRET":1}', r"`required` is not kept at `\$`"),
    (list[int], "[1]", "no member `value`"),
    (list[int], '{"value":["SECRET"]}', r"Expected `int`, got `str`"),
]


@pytest.mark.parametrize(("schema", "text", "said"), WRONG)
def test_a_reply_that_does_not_fit_raises_with_its_text(schema: Any, text: str, said: str) -> None:
    with pytest.raises(penstock.SchemaMismatch, match=said) as caught:
        asked(schema, says(text))
    error = caught.value
    assert error.text == text
    assert "SECRET" not in str(error)
    assert error.fix
    assert error.partial is not None
    assert error.partial.text == text
    assert error.partial.outcome == "complete"


def test_a_reply_that_its_limit_cut_says_so() -> None:
    with pytest.raises(penstock.SchemaMismatch, match=r"cut by its limit.*Raise max_tokens"):
        asked(City, says('{"name":"Par', finish="length"))


@pytest.mark.parametrize("view", ["events", "text", "partial", "response"])
def test_every_view_raises_it(view: str) -> None:
    with Upstream(says('{"name":"Paris"}')) as upstream:
        stream = penstock.stream("here:m", "?", schema=City, base_url=upstream.url)
        read: dict[str, Any] = {
            "events": lambda: list(stream),
            "text": lambda: list(stream.text),
            "partial": lambda: list(stream.partial()),
            "response": lambda: stream.response,
        }
        with pytest.raises(penstock.SchemaMismatch):
            read[view]()
        with pytest.raises(penstock.SchemaMismatch):
            assert stream.response


def test_a_reply_that_calls_a_tool_is_no_value_yet() -> None:
    def look() -> str:
        return "x"

    with Upstream(Turns(Reply(text="I look.", calls=(Call("look"),)), says(PARIS))) as upstream:
        where: Any = {"base_url": upstream.url, "tools": [look], "schema": City}
        run = penstock.run_tools("here:m", "?", **where)
    assert run.steps[0].response.parsed is None
    assert run.parsed == City("Paris", 2_100_000)


def test_a_cancelled_stream_is_no_mismatch() -> None:
    with Upstream(says(PARIS)) as upstream:
        with penstock.stream("here:m", "?", schema=City, base_url=upstream.url) as stream:
            for _ in stream.text:
                stream.cancel()
        assert stream.response.parsed is None


# --- while it grows --------------------------------------------------------------------------------------------------


def grown(schema: Any, pieces: tuple[str, ...], *, later: bool = False) -> list[Any]:
    with Upstream(Reply(text=pieces)) as upstream:
        options: Any = {} if later else {"schema": schema}
        with penstock.stream("here:m", "?", base_url=upstream.url, **options) as stream:
            return list(stream.partial(schema) if later else stream.partial())


PIECES = ('{"na', 'me":"Pa', 'ris","people":21', '00000,"kind":"ci', 'ty","founded":nu', "ll}")


@pytest.mark.parametrize("later", [False, True])
def test_only_what_is_certain_is_shown(later: bool) -> None:
    assert grown(City, PIECES, later=later) == [
        {},
        {"name": "Pa"},
        {"name": "Paris"},
        {"name": "Paris", "people": 2_100_000},
        {"name": "Paris", "people": 2_100_000, "kind": "city"},
        {"name": "Paris", "people": 2_100_000, "kind": "city", "founded": None},
    ]


def test_what_is_wrapped_is_shown_unwrapped() -> None:
    assert grown(list[int], ('{"value"', ":[1,2", "2,", "3]}")) == [[1], [1, 22], [1, 22, 3]]


async def test_the_view_of_a_program_with_a_loop() -> None:
    with Upstream(Reply(text=PIECES)) as upstream:
        async with penstock.astream("here:m", "?", schema=City, base_url=upstream.url) as stream:
            seen = [value async for value in stream.partial()]
    assert seen[-1] == PARIS | {"people": 2_100_000}
    assert stream.response.parsed == City("Paris", 2_100_000)


def test_a_view_without_a_schema_says_what_to_do() -> None:
    with Upstream(says(PARIS)) as upstream:
        stream = penstock.stream("here:m", "?", base_url=upstream.url)
        with pytest.raises(penstock.InvalidRequest, match=r"Write \.partial\(schema\)"):
            stream.partial()
        stream.close()


def test_a_view_that_is_given_a_schema_checks_it_too() -> None:
    with pytest.raises(penstock.SchemaMismatch):
        grown(City, ('{"name":"Paris"}',), later=True)


def test_two_types_of_one_name_are_told_apart() -> None:
    def model(**fields: Any) -> Any:
        return pydantic.create_model("Same", **fields)

    outer = [
        pydantic.create_model(name, inner=(model(**{field: (int, ...)}), ...))
        for name, field in (("A", "x"), ("B", "y"))
    ]
    with pytest.raises(penstock.InvalidSchema, match="Two types are called `Same`"):
        Shape(tuple[outer[0], outer[1]])  # type: ignore[valid-type]


# --- schemas that are none -------------------------------------------------------------------------------------------


class Opaque:
    pass


class Holder(msgspec.Struct):
    what: Opaque


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (Opaque, r"cannot be said in JSON Schema.*Use numbers"),
        (Holder, r"`?.*Opaque.*Use numbers"),
        (object(), "cannot be said"),
        ({"type": "strnig"}, r"none at `\$.type`.*Write JSON Schema"),
        ({"properties": 3}, r"none at `\$.properties`"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}, r"`#/\$defs/A`, which is not in it"),
        ({"type": "object", "properties": {"a": {"$ref": "https://x.example/a.json"}}}, "which is not in it"),
        ({"type": "array", "items": {"$ref": "#"}}, r"its own root.*\$defs"),
    ],
)
def test_a_schema_that_cannot_be_expressed_says_what_to_do(schema: Any, said: str) -> None:
    with pytest.raises(penstock.InvalidSchema, match=said):
        penstock.stream("here:m", "?", base_url=NOWHERE, schema=schema)
