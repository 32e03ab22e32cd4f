"""Pydantic's models, for programs that have them: the only file that knows of pydantic.

Pydantic is imported when one of its models is seen, and not before; a program without it has none to pass.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from penstock.canon.errors import PenstockError


def is_model(type_: Any) -> bool:
    """Whether it is a pydantic model. Whoever has made one has imported pydantic."""
    return (
        isinstance(type_, type) and "pydantic" in sys.modules and issubclass(type_, sys.modules["pydantic"].BaseModel)
    )


def schema_of(type_: Any) -> dict[str, Any]:
    """For msgspec, which asks for the types that it does not know."""
    if not is_model(type_):
        raise NotImplementedError
    return type_.model_json_schema()  # type: ignore[no-any-return]


def converted(type_: Any, value: Any) -> Any:
    """The model that these plain values make. Raises `ValueError` in words that hold none of them."""
    if not is_model(type_):
        raise NotImplementedError
    from pydantic import ValidationError

    try:
        return type_.model_validate(value)
    except ValidationError as error:
        raise ValueError(_said(error)) from None


def _said(error: Any) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    return f"{first['msg']} - at `${path}`"


def written(value: Any) -> Any:
    """For `msgspec.json.encode`: a model as plain values."""
    if is_model(type(value)):
        return value.model_dump(mode="json")
    return _refuse(value)


def _refuse(value: Any) -> NoReturn:
    raise PenstockError(
        f"A `{type(value).__name__}` cannot be written as JSON.", fix="Give a string, numbers, lists or dicts."
    )
