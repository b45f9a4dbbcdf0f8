"""What a person typed about an event in, the event out, by the rules of the catalog. An edge.

In: texts of options, the catalog if there is one. Out: a `DemandEvent`. Raises `BadInputError` that
names the option. Never: has a rule of its own where the catalog has one.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from gateway.words import BadInputError
from placement import catalog_convert
from placement.catalog import Catalog, DemandEvent, ForecastPolicy
from placement.catalog_check import check_events
from placement.catalog_explain import explain
from placement.catalog_fields import REMEDY
from placement.catalog_problems import Finding
from placement.catalog_shape import EventEntry, ForecastEntry
from placement.catalog_when import moment_us, read_moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Texts of options; empty: not given."""

    name: str
    models: str
    start: str
    duration: str
    end: str
    uplift: float | None
    expected: str


def event_of(given: Given, catalog: Catalog | None) -> DemandEvent:
    """Models are looked up where there is a catalog. Raises `BadInputError`."""
    zone = (catalog.forecast if catalog else ForecastPolicy()).time_zone
    ids = {str(spec.id) for spec in catalog.models} if catalog else None
    if given.uplift is None and not given.expected:
        raise BadInputError("how much is asked: add --uplift 3.0, or --expected 5/s")
    try:
        entry = EventEntry.model_validate(_keys(given, zone))
    except ValidationError as error:
        raise _told(explain(error)[0], given) from None
    for finding in check_events(ForecastEntry(events=[entry]), ids):
        raise _told(finding, given)
    return catalog_convert.event(entry, zone)


def moment_of(text: str, option: str, zone: str) -> int:
    """Microseconds since 1970. Raises `BadInputError`."""
    return moment_us(_moment(text, option), zone)


def _keys(given: Given, zone: str) -> dict[str, Any]:
    keys = {
        "name": given.name,
        "models": [name.strip() for name in given.models.split(",") if name.strip()],
        "start": given.start,
        "duration": _duration(given, zone),
        "uplift": given.uplift,
        "expected": given.expected or None,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _duration(given: Given, zone: str) -> str:
    if bool(given.duration) == bool(given.end):
        raise BadInputError("how long it lasts: give --duration 4h or --end, one of the two")
    if given.duration:
        return given.duration
    start_us, end_us = (
        moment_of(given.start, "--start", zone),
        moment_of(given.end, "--end", zone),
    )
    if end_us <= start_us:
        raise BadInputError(f"--end {given.end}: is not after --start {given.start}")
    return f"{end_us - start_us} us"


def _moment(text: str, option: str) -> datetime:
    try:
        return read_moment(text)
    except PydanticCustomError as error:
        said = error.context or {}
        raise BadInputError(f"{option} {text}: {said['what']}. {said[REMEDY]}") from None


def _told(finding: Finding, given: Given) -> BadInputError:
    """A finding about a key of the catalog, as one about the option that gave it."""
    key = next(str(part) for part in reversed(finding.path) if isinstance(part, str))
    option = "NAME" if key == "name" else f"--{key}"
    return BadInputError(f"{option} {getattr(given, key)}: {finding.what}. {finding.remedy}")
