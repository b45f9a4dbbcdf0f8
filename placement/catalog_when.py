"""The types of what is said about demand: places, moments, rates of requests.

In: values as YAML gave them. Out: annotated types with the core's units and their JSON Schema.
Never: needs the package of holidays; without it a country is only looked at, not looked up.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from placement import catalog_units as units
from placement.catalog_fields import TimeUs, json_text, refuse, text_of, unit_of
from placement.catalog_problems import closest

Heavy: TypeAlias = Literal["prophet", "mstl"]
HEAVY: tuple[Heavy, ...] = get_args(Heavy)
"""Forecasters that fit for seconds, in a process of their own."""

COUNTRY_PATTERN = r"^[A-Z]{2}$"
MOMENT_PATTERN = r"^20\d\d-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?$"
UPLIFT_MAX = 100.0
LASTS_MAX_US = 366 * 86_400 * 1_000_000
_MOMENT = "Write for example 2026-12-01T09:00, or with an offset 2026-12-01T09:00+01:00"


def moment_us(moment: datetime, zone: str) -> int:
    """A moment without an offset is by the clock of the zone."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400 * 1_000_000 + since.seconds * 1_000_000 + since.microseconds


def read_zone(value: object) -> str:
    if isinstance(value, str) and value in _zones():
        return value
    near = closest(value, _zones()) if isinstance(value, str) else None
    guess = f"Did you mean {near}? " if near else ""
    remedy = f"{guess}Write an IANA name such as Europe/Berlin, or UTC"
    raise refuse("unknown time zone", remedy)


def read_moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise refuse("expected a time", _MOMENT)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise refuse("not a time in ISO 8601", _MOMENT) from None
    if not 2000 <= moment.year < 2100:
        raise refuse("a time out of range", _MOMENT)
    return moment


def read_heavy(value: object) -> tuple[Heavy, ...]:
    if value in (True, "on"):
        return HEAVY
    if value in (False, "off"):
        return ()
    if not isinstance(value, list):
        raise refuse("expected on, off or a list of names", f"Known: {', '.join(HEAVY)}")
    for name in value:
        if name not in HEAVY:
            near = closest(name, HEAVY) if isinstance(name, str) else None
            guess = f"Did you mean {near}? " if near else ""
            raise refuse("unknown heavy forecaster", f"{guess}Known: {', '.join(HEAVY)}")
    return tuple(name for name in HEAVY if name in value)


def takes_time(value: int) -> int:
    if value == 0:
        raise refuse("an event that takes no time", "Write for example 4 h")
    if value > LASTS_MAX_US:
        raise refuse(
            "an event that lasts for more than a year", "What lasts is the usual; 366 d at most"
        )
    return value


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _with_holidays(code: str) -> str:
    known = _countries()
    if known and code not in known:
        raise refuse("no public holidays are known of this country", _country_remedy(code, known))
    return code


def _country_remedy(code: str, known: frozenset[str]) -> str:
    """Codes are too short for guessing; these two are written often."""
    usual = {"UK": "GB", "EN": "GB"}.get(code)
    if usual in known:
        return f"Did you mean {usual}?"
    return "Write its ISO code, such as DE or US, or remove the key"


@lru_cache(maxsize=1)
def _countries() -> frozenset[str]:
    """Countries whose holidays are known; empty where the package is missing."""
    try:
        from holidays import list_supported_countries
    except ImportError:
        return frozenset()
    return frozenset(list_supported_countries(include_aliases=False))


TimeZone = Annotated[
    str,
    PlainValidator(read_zone),
    WithJsonSchema({"type": "string", "examples": ["Europe/Berlin", "America/New_York", "UTC"]}),
]
Country = Annotated[
    str,
    text_of(COUNTRY_PATTERN, "expected a country's ISO code", "Two capital letters: DE, US, JP"),
    AfterValidator(_with_holidays),
    json_text(COUNTRY_PATTERN, "DE", "US"),
]
Moment = Annotated[
    datetime,
    PlainValidator(read_moment),
    json_text(MOMENT_PATTERN, "2026-12-01T09:00", "2026-12-01T09:00+01:00"),
]
RequestRate = Annotated[
    float,
    unit_of(units.parse_requests_per_s),
    json_text(units.REQUESTS_PATTERN, "5/s", "300/min", "40/h"),
]
HeavyOnes = Annotated[
    tuple[Heavy, ...],
    PlainValidator(read_heavy),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"enum": ["on", "off"]},
                {"type": "array", "items": {"enum": list(HEAVY)}},
            ]
        }
    ),
]
Duration = Annotated[TimeUs, AfterValidator(takes_time)]
Factor = Annotated[float, Field(gt=0, le=UPLIFT_MAX)]
