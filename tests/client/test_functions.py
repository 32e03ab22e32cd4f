"""Functions as tools: what the model is told of them, how they are called, and what cannot be one."""

from __future__ import annotations

import asyncio
import enum
import functools
import sys
import threading
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pydantic
import pytest

import penstock
from penstock.client.functions import result_parts

FIX = r"penstock\.tool\("


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Place:
    city: str
    country: str | None = None


class Person(pydantic.BaseModel):
    name: str
    home: Address


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(description="With its number")


Person.model_rebuild()


async def test_a_signature_and_a_docstring_become_a_schema() -> None:
    @penstock.tool
    def get_weather(place: Place, days: Annotated[int, msgspec.Meta(ge=1)] = 3, unit: Unit = Unit.C) -> str:
        """The forecast for a place.

        Not for the past.

        Args:
            place: Where.
            days: How many days.
        """
        return f"{place.city} {days} {unit.name}"

    told = get_weather.tool
    assert (told.name, told.description) == ("get_weather", "The forecast for a place.\n\nNot for the past.")
    schema = told.parameters
    assert schema is not None
    jsonschema.Draft202012Validator.check_schema(schema)
    place, days, unit = schema["properties"].values()
    assert (days["type"], days["minimum"], days["default"]) == ("integer", 1, 3)
    assert days["description"] == "How many days."
    assert "Where." in str(place)
    assert schema["required"] == ["place"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Unit"]["enum"] == ["celsius", "fahrenheit"]
    assert "default" not in unit
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid({"place": {"city": "Paris"}, "unit": "celsius"})
    assert not valid({"place": {"city": "Paris"}, "unit": "kelvin"})
    # and it is called with the types that it asks for
    assert await get_weather.run({"place": {"city": "Paris"}, "unit": "fahrenheit"}) == "Paris 3 F"
    assert get_weather(Place("Rome")) == "Rome 3 C"


@pytest.mark.parametrize(
    "doc",
    [
        "Adds.\n\nArgs:\n    a: The first.\n",
        "Adds.\n\nParameters\n----------\na : int\n    The first.\n",
        "Adds.\n\n:param a: The first.\n",
    ],
    ids=["google", "numpy", "sphinx"],
)
def test_each_form_of_docstring(doc: str) -> None:
    def add(a: int, b: int = 0) -> int:
        return a + b

    add.__doc__ = doc
    told = penstock.tool(add).tool
    assert told.description == "Adds."
    assert told.parameters is not None
    assert told.parameters["properties"]["a"] == {"description": "The first.", "type": "integer"}
    assert told.parameters["properties"]["b"] == {"type": "integer", "default": 0}


async def test_what_the_model_sent_is_checked_before_the_function_is_called() -> None:
    called: list[Any] = []

    def look(at: str, times: int = 1, unit: Literal["m", "ft"] = "m") -> None:
        called.append((at, times, unit))

    tool = penstock.tool(look)
    wrong: dict[str, Any]
    for wrong, said in (
        ({}, "missing required field `at`"),
        ({"at": 5}, r"Expected `str`, got `int` - at `\$.at`"),
        ({"at": "sea", "when": 1}, "unknown field `when`"),
        ({"at": "sea", "unit": "mile"}, r"`\$.unit`"),
    ):
        with pytest.raises(ValueError, match=said):
            await tool.run(wrong)
    assert called == []
    await tool.run({"at": "sea", "times": "3"})  # models write "3" for 3
    assert called == [("sea", 3, "m")]


async def test_parameters_may_be_called_what_fields_cannot_be() -> None:
    def look(self_: str, json: int, __struct_fields__: int = 1, copy: str = "x") -> str:
        return f"{self_} {json} {__struct_fields__} {copy}"

    tool = penstock.tool(look)
    assert tool.tool.parameters is not None
    assert list(tool.tool.parameters["properties"]) == ["self_", "json", "__struct_fields__", "copy"]
    assert await tool.run({"self_": "a", "json": 2}) == "a 2 1 x"


async def test_methods_partials_and_objects_are_functions_too() -> None:
    class Shop:
        def price(self, item: str) -> str:
            """What it costs."""
            return f"{item}: 3"

        async def __call__(self, item: str) -> str:
            return item

    def add(a: int, b: int) -> int:
        return a + b

    method = penstock.tool(Shop().price)
    assert (method.name, method.tool.description) == ("price", "What it costs.")
    assert await method.run({"item": "tea"}) == "tea: 3"
    partial = penstock.tool(name="add_two")(functools.partial(add, b=2))
    assert await partial.run({"a": 1}) == 3
    assert await penstock.tool(name="shop")(Shop()).run({"item": "tea"}) == "tea"


async def test_a_method_may_be_made_a_tool_in_its_class() -> None:
    class Shop:
        def __init__(self, price: int) -> None:
            self._price = price

        @penstock.tool(name="what_it_costs", timeout=3)
        def price(self, item: str, pieces: int = 1) -> str:
            """What it costs."""
            return f"{item}: {self._price * pieces}"

    cheap, dear = Shop(1).price, Shop(9).price
    assert (cheap.name, cheap.timeout) == ("what_it_costs", 3)
    assert cheap.tool.parameters is not None
    assert list(cheap.tool.parameters["properties"]) == ["item", "pieces"]
    assert [await each.run({"item": "tea", "pieces": 2}) for each in (cheap, dear)] == ["tea: 2", "tea: 18"]
    assert Shop(5).price("tea") == "tea: 5"


async def test_pydantic_models_are_parameters_too() -> None:
    def greet(person: Person) -> str:
        return f"{type(person).__name__} {person.name} {person.home.street}"

    tool = penstock.tool(greet)
    assert tool.tool.parameters is not None
    valid = jsonschema.Draft202012Validator(tool.tool.parameters).is_valid
    given: dict[str, Any] = {"person": {"name": "Ann", "home": {"street": "Low St 1"}}}
    assert valid(given)
    assert not valid({"person": {"name": "Ann"}})
    assert await tool.run(given) == "Person Ann Low St 1"
    with pytest.raises(ValueError, match="Field required - at"):
        await tool.run({"person": {"name": "Ann", "home": {}}})


async def test_a_function_known_by_a_schema_gets_what_comes() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}

    @penstock.tool(name="search", description="Search.", parameters=schema, strict=True)
    def call_remote(**arguments: Any) -> Any:
        return arguments

    assert call_remote.tool == penstock.Tool("search", "Search.", schema, True)
    assert await call_remote.run({"q": "x", "more": 1}) == {"q": "x", "more": 1}


def test_a_strict_tool_says_every_parameter() -> None:
    def look(at: str, times: int = 1) -> None: ...
    def free(where: dict[str, int]) -> None: ...

    assert penstock.tool(strict=True)(look).tool == penstock.Tool(
        "look",
        None,
        {
            "type": "object",
            "properties": {"at": {"type": "string"}, "times": {"type": "integer"}},
            "required": ["at", "times"],
            "additionalProperties": False,
        },
        True,
    )
    with pytest.raises(penstock.InvalidSchema, match=r"hold a model.*Leave strict out"):
        penstock.tool(strict=True)(free)


async def test_functions_run_in_threads_and_async_ones_in_the_loop() -> None:
    def blocking() -> str:
        return threading.current_thread().name

    async def quick() -> str:
        return threading.current_thread().name

    assert await penstock.tool(blocking).run({}) == "penstock-tool"
    assert await penstock.tool(quick).run({}) == threading.current_thread().name


async def test_a_thread_that_ends_too_late_harms_nobody() -> None:
    gate = threading.Event()

    def hang() -> str:
        gate.wait(10)
        return "late"

    task = asyncio.create_task(penstock.tool(hang).run({}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await asyncio.sleep(0.01)


async def test_an_exception_is_the_functions_own() -> None:
    def stop() -> None:
        raise StopIteration(3)

    def divide() -> float:
        return 1 / 0

    def leave() -> None:
        sys.exit(3)

    async def leave_too() -> None:
        sys.exit(3)

    with pytest.raises(RuntimeError, match="StopIteration"):
        await penstock.tool(stop).run({})
    for function in (leave, leave_too):
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            await penstock.tool(function).run({})
    with pytest.raises(ZeroDivisionError):
        await penstock.tool(divide).run({})


class Opaque:
    pass


def opaque(what: Opaque) -> None: ...
def positional(a: int, /) -> None: ...
def variadic(*a: int) -> None: ...
def keywords(**a: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (opaque, "parameter of `opaque` cannot be said in JSON Schema.* Use numbers"),
        (positional, rf"takes `a.*{FIX}"),
        (variadic, rf"`\*a.*{FIX}"),
        (keywords, rf"`\*\*a.*{FIX}"),
    ],
)
def test_what_cannot_be_expressed_says_what_to_do(function: Any, said: str) -> None:
    with pytest.raises(penstock.InvalidSchema, match=said):
        penstock.stream("here:m", "Hi", base_url="http://127.0.0.1:9/v1", tools=[function])


@pytest.mark.parametrize("function", [lambda: 1, functools.partial(opaque)])
def test_a_tool_needs_a_name_that_providers_take(function: Any) -> None:
    with pytest.raises(penstock.InvalidRequest, match=rf"name.*{FIX}"):
        penstock.tool(function)


def test_what_a_function_gives_is_text_parts_or_json() -> None:
    image = penstock.Image(url="https://example.org/a.png")

    def given(value: Any) -> Any:
        return result_parts(value)

    assert given("a") == (penstock.Text("a"),)
    assert given(image) == (image,)
    assert given([penstock.Text("a"), image]) == (penstock.Text("a"), image)
    assert given(None) == (penstock.Text("null"),)
    assert given(["a", "b"]) == (penstock.Text('["a","b"]'),)
    assert given(Place("Rome")) == (penstock.Text('{"city":"Rome","country":null}'),)
    assert given(Address(street="Low St 1")) == (penstock.Text('{"street":"Low St 1"}'),)
    with pytest.raises(penstock.PenstockError, match="`Opaque` cannot be written as JSON"):
        given(Opaque())
