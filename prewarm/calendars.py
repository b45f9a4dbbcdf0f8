"""Bins of equal width and the local time in which people ask. Pure.

In: where bin 0 starts, how wide a bin is, an IANA time zone. Out: which bin had the same local time
some days earlier, weekday and hour of a bin. Never: reads a clock; takes a day for 24 hours where
the zone changes its offset.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

US = 1_000_000
DAY_US = 86_400 * US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LocalTime(NamedTuple):
    """When a bin starts, on the clock of its zone. Monday is weekday 0."""

    day: int
    """Days since 1970-01-01, by local date."""
    weekday: int
    second: int
    """Since local midnight."""


@dataclass(frozen=True)
class Calendar:
    """A time axis: bin b covers [start_us + b * width_us, ... + width_us) of UTC."""

    start_us: int
    width_us: int
    zone: str = "UTC"

    @property
    def day_bins(self) -> int:
        """How many bins a day of 24 hours has, one at least."""
        return max(DAY_US // self.width_us, 1)

    def at_us(self, index: int) -> int:
        return self.start_us + index * self.width_us

    def index(self, at_us: int) -> int:
        """The bin that holds this moment; negative before bin 0."""
        return (at_us - self.start_us) // self.width_us

    def local(self, index: int) -> LocalTime:
        at_us = self.at_us(index) + self.offset_us(self.at_us(index))
        day, rest_us = divmod(at_us, DAY_US)
        return LocalTime(day=day, weekday=(day + 3) % 7, second=rest_us // US)

    def bins_to(self, index: int, days: int) -> int:
        """How many bins lie between this one and the same local time so many days before it."""
        now_us = self.at_us(index)
        then_us = now_us - days * DAY_US
        shifted_us = then_us + self.offset_us(now_us) - self.offset_us(then_us)
        return round((now_us - shifted_us) / self.width_us)

    def offset_us(self, at_us: int) -> int:
        """Local time minus UTC."""
        return 0 if self.zone == "UTC" else _offset_us(self.zone, at_us // _STEP_US)


_STEP_US = 900 * US
"""Zones change their offset at whole quarters of an hour."""


@lru_cache(maxsize=65_536)
def _offset_us(zone: str, quarter: int) -> int:
    moment = _EPOCH + timedelta(microseconds=quarter * _STEP_US)
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)
    return offset // timedelta(microseconds=1)
