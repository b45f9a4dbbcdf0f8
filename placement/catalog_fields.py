"""The types of the catalog file's fields: human units read, and refused with a remedy.

In: values as YAML gave them. Out: annotated types with the core's units and their JSON Schema; the
strict base of every entry. Never: knows which entry has which field.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from placement import catalog_units as units
from placement.catalog_problems import closest
from placement.constants import GPU_TYPES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
NODE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
ENV_PATTERN = r"^[A-Z_][A-Z0-9_]{0,63}$"
URL_PATTERN = r"^https?://"
REMEDY = "remedy"
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]")


def refuse(what: str, remedy: str) -> PydanticCustomError:
    """`what` comes from us alone: pydantic would read braces in it as a template."""
    return PydanticCustomError("catalog", "{what}", {"what": what, REMEDY: remedy})


def unit_of(parse: Callable[[object], float]) -> PlainValidator:
    def read(value: object) -> float:
        try:
            return parse(value)
        except units.UnitError as error:
            raise refuse(error.what, error.remedy) from None

    return PlainValidator(read)


def text_of(pattern: str, what: str, remedy: str) -> PlainValidator:
    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise refuse(what, remedy)
        return value

    return PlainValidator(read)


def _read_name(value: object) -> str:
    if isinstance(value, bool | int | float):
        raise refuse("expected a name, found a number", "Put it in quotes")
    wrong = not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value)
    if wrong or ".." in str(value) or "//" in str(value):
        remedy = "Use letters, digits and . _ - : / @ +, starting with a letter or digit"
        raise refuse("not a usable name", remedy)
    return str(value)


def _read_gpu_type(value: object) -> str:
    if isinstance(value, str) and value in GPU_TYPES:
        return value
    near = closest(value, GPU_TYPES) if isinstance(value, str) else None
    guess = f"Did you mean {near}? " if near else ""
    raise refuse("unknown GPU type", f"{guess}Known: {', '.join(sorted(GPU_TYPES))}")


def power_of_two(value: int) -> int:
    if value & (value - 1):
        raise refuse("not a power of two", "Write 1, 2, 4, 8 or 16")
    return value


def _at_least_a_quarter(value: int) -> int:
    """Coarse rows are folded from finer ones, which must live that long."""
    if value < 15 * 60 * 1_000_000:
        raise refuse("too short a time to keep history", "Write 15 min or more")
    return value


def _url(whose: str, example: str, credentials: str) -> PlainValidator:
    """A base URL without what does not belong in one. The value is never repeated."""
    remedy = f"Write for example {example}"

    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > 2048 or _BLANKS.search(value):
            raise refuse(f"expected the URL of {whose}", remedy)
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise refuse("not a valid URL", remedy) from None
        if parts.scheme not in ("http", "https"):
            raise refuse("the URL must start with http:// or https://", remedy)
        if "@" in parts.netloc:
            raise refuse("a URL must not carry credentials", f"Remove them, and {credentials}")
        if not parts.hostname or port == 0:
            raise refuse("the URL names no host or an impossible port", remedy)
        if parts.query or parts.fragment:
            raise refuse("a base URL has no query and no fragment", remedy)
        return value.rstrip("/").removesuffix("/v1").rstrip("/")

    return PlainValidator(read)


def json_text(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Bytes = Annotated[
    int, unit_of(units.parse_bytes), json_text(units.BYTES_PATTERN, "16.1 GB", "15 GiB", "128 KiB")
]
Rate = Annotated[int, unit_of(units.parse_rate), json_text(units.RATE_PATTERN, "22 GB/s")]
TimeUs = Annotated[
    int, unit_of(units.parse_time_us), json_text(units.TIME_PATTERN, "500 ms", "30 s", "5 min")
]
Lasting = Annotated[TimeUs, AfterValidator(_at_least_a_quarter)]
Count = Annotated[
    int,
    unit_of(units.parse_count),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": units.COUNT_PATTERN},
            ],
            "examples": ["8B", "567M"],
        }
    ),
]
Name = Annotated[str, PlainValidator(_read_name), json_text(NAME_PATTERN, "llama-3.1-8b")]
NodeName = Annotated[
    str,
    text_of(NODE_PATTERN, "not a usable node name", "Use letters, digits and . _ -, at most 63"),
    json_text(NODE_PATTERN, "n"),
]
Digest = Annotated[
    str,
    text_of(
        DIGEST_PATTERN,
        "a key must be a digest, `sha256:` and 64 hexadecimal digits; it is not shown here",
        "Never write a key in clear: make one with `warmtide key new` and paste its digest",
    ),
    json_text(DIGEST_PATTERN),
]
EnvName = Annotated[
    str,
    text_of(
        ENV_PATTERN,
        "expected the name of an environment variable; what was found is not shown here",
        "Write for example OPENAI_API_KEY, and keep the key itself out of the file",
    ),
    json_text(ENV_PATTERN, "OPENAI_API_KEY"),
]
Url = Annotated[
    str,
    _url(
        "an OpenAI-compatible server",
        "http://127.0.0.1:9000",
        "name an environment variable in `api_key_env`",
    ),
    json_text(URL_PATTERN, "http://127.0.0.1:9000"),
]
CollectorUrl = Annotated[
    str,
    _url(
        "an OpenTelemetry collector",
        "http://127.0.0.1:4318",
        "set OTEL_EXPORTER_OTLP_HEADERS where `warmtide up` is called",
    ),
    json_text(URL_PATTERN, "http://127.0.0.1:4318"),
]
GpuTypeName = Annotated[
    str,
    PlainValidator(_read_gpu_type),
    WithJsonSchema({"type": "string", "enum": sorted(GPU_TYPES)}),
]
Share = Annotated[float, Field(ge=0, le=1)]


class Entry(BaseModel):
    """Strict: no unknown keys, no silent conversions. A key without a value counts as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {k: v for k, v in data.items() if v is not None or k not in known}
