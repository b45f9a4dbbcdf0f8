"""A time axis on which a day is no longer than a scenario's slice. Pure.

In: when the slice of the first day begins, how many bins it has. Out: a `Calendar` whose bins are
those of the slice, day after day. Never: knows what lies between two slices, which nobody has seen.

Forecasters go through a past bin by bin. Of thirteen days of twenty minutes that would be thousands
of holes for some fifty bins, and their measures of a day (how much to forget, how long to be on
trial) would be measures of holes.
"""

from dataclasses import dataclass

from prewarm.calendars import DAY_US, Calendar


@dataclass(frozen=True)
class SliceCalendar(Calendar):
    """UTC: traces have no other time."""

    slice_bins: int = 1

    @property
    def day_bins(self) -> int:
        return self.slice_bins

    def at_us(self, index: int) -> int:
        day, of_day = divmod(index, self.slice_bins)
        return self.start_us + day * DAY_US + of_day * self.width_us

    def index(self, at_us: int) -> int:
        day, since_us = divmod(at_us - self.start_us, DAY_US)
        return day * self.slice_bins + min(since_us // self.width_us, self.slice_bins - 1)

    def bins_to(self, index: int, days: int) -> int:  # noqa: ARG002
        return days * self.slice_bins
