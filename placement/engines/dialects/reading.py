"""Bodies of further dialects, read strictly: what an engine cannot do is said, not left out. Pure.

In: bodies as bytes, shapes as msgspec records. Out: records, or `UnfitError` in words for the
client, naming the field. Never: keeps state.
"""

from typing import Any, TypeVar

import msgspec

Shape = TypeVar("Shape")


class UnfitError(ValueError):
    """A request that this engine does not take: the text says why, `param` which field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def read(body: bytes, shape: type[Shape]) -> Shape:
    """A body in its shape. Raises `UnfitError`."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise in_words(error, "") from None


def convert(value: Any, shape: type[Shape], where: str) -> Shape:
    """A value inside a body in its shape; `where` it stands is told with what is wrong."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise in_words(error, where) from None


def in_words(error: Exception, where: str) -> UnfitError:
    what, _, at = str(error).partition(" - at ")
    field = f"{where}{at.strip('`').removeprefix('$')}".removeprefix(".")
    if "unknown field" in what:
        name = what.split("`")[1]
        full = f"{field}.{name}" if field else name
        return UnfitError(f"`{full}` is not supported by this engine: leave it out", full)
    if what.startswith("Invalid value"):
        given = what.removeprefix("Invalid value ")
        return UnfitError(f"`{field}`: {given} is not supported by this engine", field)
    if not field:
        return UnfitError(f"the request body is not valid: {what}")
    return UnfitError(f"`{field}`: {what[0].lower()}{what[1:]}", field)
