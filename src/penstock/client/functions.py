"""Functions → tools: a signature and a docstring become the JSON Schema that the model is told, and a call runs them.

A parameter's type is its schema, its line in the docstring (Google's, NumPy's or Sphinx's form) its description, and a
default makes it optional. What the model sends is checked against the same types before the function is called.
A function that is not async runs in a thread of its own, so that it holds up nothing else; a thread cannot be stopped,
so what such a function gives after its time is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import re
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

import msgspec

from penstock.canon.errors import InvalidRequest, InvalidSchema
from penstock.canon.events import Text
from penstock.canon.request import Audio, File, Image, Tool
from penstock.client import pydantic_models
from penstock.client.schema import Schema, closed, decode_hook, is_strict, schema_of

P = ParamSpec("P")
R = TypeVar("R")

ResultPart = Text | Image | Audio | File

#: what OpenAI's and Anthropic's APIs take
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_JSON = (str, int, float, bool, type(None))


class FunctionTool(Generic[P, R]):
    """A function with what a model is told of it. Calling it calls the function.

    `timeout` is in seconds; None: as `run_tools` says.
    """

    def __init__(
        self,
        function: Callable[P, R],
        tool: Tool,
        arguments: type[msgspec.Struct] | None = None,
        *,
        timeout: float | None = None,
        bound: Callable[[Callable[..., Any]], FunctionTool[..., Any]] | None = None,
    ) -> None:
        self.tool = tool
        self._bound = bound
        self.timeout = timeout
        self._function = function
        self._arguments = arguments
        functools.update_wrapper(self, function, updated=())

    @property
    def name(self) -> str:
        return self.tool.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> FunctionTool[..., Any]:
        """A method that was made a tool in its class: the same tool of this object, without its `self`."""
        if instance is None or self._bound is None or not hasattr(self._function, "__get__"):
            return self
        return self._bound(self._function.__get__(instance, owner))

    def __repr__(self) -> str:
        return f"<FunctionTool {self.name}>"

    async def run(self, arguments: dict[str, Any]) -> Any:
        """What the function gives for a model's arguments. Raises `ValueError` where they do not fit."""
        given = self._checked(arguments)
        if _is_async(self._function):
            try:
                return await self._function(**given)  # type: ignore[call-arg, misc]
            except SystemExit as error:  # it would end the loop, and everybody else's calls with it
                raise RuntimeError(f"SystemExit: {error}") from error
        result = await _in_thread(functools.partial(self._function, **given))
        return await result if inspect.isawaitable(result) else result

    def _checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._arguments is None:
            return arguments
        try:
            fitting = msgspec.convert(arguments, self._arguments, dec_hook=decode_hook)
        except msgspec.ValidationError as strict:
            try:  # models write "3" for 3
                fitting = msgspec.convert(arguments, self._arguments, strict=False, dec_hook=decode_hook)
            except msgspec.ValidationError:
                raise ValueError(f"The arguments do not fit: {strict}") from None
        return {name: getattr(fitting, field) for field, name in _encoded(self._arguments)}


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Schema | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Schema | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool of a function: `@penstock.tool`, or `penstock.tool(name="look_up")(function)`.

    `name` and `description` are the function's own unless given. `parameters` is a JSON Schema of type object, for
    functions whose arguments are known by a schema and not by a signature; what comes is then passed unchecked.
    `timeout` in seconds is for each call; None leaves it to `run_tools`. `strict` asks the provider to hold the model
    to the schema, with every parameter said. Raises `InvalidSchema` for a parameter that JSON Schema cannot describe,
    `InvalidRequest` for a name that providers refuse.
    """
    if function is None:
        return functools.partial(
            _made, name=name, description=description, parameters=parameters, strict=strict, timeout=timeout
        )
    return _made(function, name=name, description=description, parameters=parameters, strict=strict, timeout=timeout)


def _made(
    function: Callable[P, R],
    *,
    name: str | None,
    description: str | None,
    parameters: Schema | None,
    strict: bool | None,
    timeout: float | None,
) -> FunctionTool[P, R]:
    if isinstance(function, FunctionTool):
        function = function._function
    called = name or str(getattr(function, "__name__", ""))
    if not _NAME.fullmatch(called):
        raise InvalidRequest(
            f"`{called}` cannot be a tool's name." if called else "A tool needs a name.",
            param="tools",
            fix="Give one of letters, digits, - and _: penstock.tool(name=…)(function).",
        )
    bound = functools.partial(
        _made, name=name, description=description, parameters=parameters, strict=strict, timeout=timeout
    )
    told, lines = _documented(function)
    arguments = None
    if parameters is None:
        arguments = _struct(function, called, lines)
        parameters = _told(schema_of(arguments, f"A parameter of `{called}`"))
        if strict:
            parameters = closed(parameters)
            if not is_strict(parameters):
                raise InvalidSchema(
                    f"No provider can hold a model to the parameters of `{called}`.",
                    param=f"tools.{called}",
                    fix="Leave strict out, or say the members of every object.",
                )
    return FunctionTool(
        function, Tool(called, told if description is None else description, parameters, strict), arguments,
        timeout=timeout, bound=bound,
    )  # fmt: skip


# --- what the model is told ------------------------------------------------------------------------------------------


def _documented(function: Callable[..., Any]) -> tuple[str | None, dict[str, str]]:
    """What a docstring says of the function, and of each parameter."""
    text = inspect.getdoc(function) if not isinstance(function, functools.partial) else inspect.getdoc(function.func)
    if not text:
        return None, {}
    import docstring_parser  # 10 ms, for programs that have tools

    parsed = docstring_parser.parse(text)
    said = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    return said or None, {each.arg_name: each.description for each in parsed.params if each.description}


def _struct(function: Callable[..., Any], name: str, lines: dict[str, str]) -> type[msgspec.Struct]:
    """The function's parameters as a struct."""
    inner = function.func if isinstance(function, functools.partial) else function
    target = inner if inspect.isroutine(inner) else type(inner).__call__
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(target, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidSchema(
            f"The signature of `{name}` cannot be read: {error}.",
            param="tools",
            fix="Say the parameters: penstock.tool(name=…, parameters={…})(function).",
        ) from error
    fields: list[Any] = []
    for k, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidSchema(
                f"`{name}` takes `{parameter}`, and a model passes arguments by name.",
                param=f"tools.{name}",
                fix="Give each parameter a name, or say them: penstock.tool(parameters={…}).",
            )
        type_ = hints.get(parameter.name, Any)
        if (line := lines.get(parameter.name)) and not _is_described(type_):
            type_ = Annotated[type_, msgspec.Meta(description=line)]
        # By number, because a parameter may be called what no field of a struct can be.
        fields.append((f"p{k}", type_, _default(parameter)))
    names = {f"p{k}": parameter for k, parameter in enumerate(signature.parameters)}
    return msgspec.defstruct(name.replace("-", "_"), fields, rename=names, kw_only=True, forbid_unknown_fields=True)


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return msgspec.field(name=parameter.name)
    if isinstance(default, _JSON):
        return msgspec.field(default=default, name=parameter.name)
    # Which it is, is the function's own affair.
    return msgspec.field(default_factory=lambda: default, name=parameter.name)


def _is_described(type_: Any) -> bool:
    return any(isinstance(each, msgspec.Meta) and each.description for each in getattr(type_, "__metadata__", ()))


def _encoded(struct: type[msgspec.Struct]) -> list[tuple[str, str]]:
    return list(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))


def _told(schema: Schema) -> Schema:
    """Without what says nothing: the function's name once more, and defaults of null."""
    schema.pop("title", None)
    for each in schema.get("properties", {}).values():
        if "default" in each and each["default"] is None:
            del each["default"]
    return schema


# --- running ---------------------------------------------------------------------------------------------------------


def _is_async(function: Callable[..., Any]) -> bool:
    inner = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


async def _in_thread(function: Callable[[], Any]) -> Any:
    """A daemon thread for this call alone: one that hangs holds up no other, nor the program's end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def run() -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = context.run(function)
        except StopIteration as raised:  # no future can hold one
            error = RuntimeError(f"StopIteration: {raised.value}")
        except Exception as raised:
            error = raised
        except BaseException as raised:  # of SystemExit nobody would hear
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    context = contextvars.copy_context()
    threading.Thread(target=run, name="penstock-tool", daemon=True).start()
    return await done


def result_parts(value: Any) -> tuple[ResultPart, ...]:
    """What a function gave, as a tool's result holds it: text and parts as they are, anything else as JSON."""
    if isinstance(value, str):
        return (Text(value),)
    if isinstance(value, ResultPart):
        return (value,)
    if isinstance(value, Sequence) and value and all(isinstance(each, ResultPart) for each in value):
        return tuple(value)
    return (Text(msgspec.json.encode(value, enc_hook=pydantic_models.written).decode()),)
