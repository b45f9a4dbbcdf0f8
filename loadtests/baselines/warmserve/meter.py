"""How much of each model is in flight: by window (4.1) and over the last five seconds (4.7).

In: changes of a model's concurrency, with their times. Out: `Seen` windows and mean loads. Pure
but for its own state, which is mutated at each arrival and end. Never: reads a clock.
"""

from collections import deque

from loadtests.baselines.warmserve.flags import US
from loadtests.baselines.warmserve.forecast import Seen

LOAD_SPAN_US = 5 * US


class Meter:
    """One model. `area` is concurrency times microseconds since it was first asked for."""

    __slots__ = (
        "area", "changes", "first_us", "level", "peak", "since_us", "window_area",
        "window_since_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.level = 0
        self.area = 0
        self.since_us = 0
        self.first_us = -1
        self.peak = 0
        self.window_area = 0
        self.window_since_us = 0
        self.changes: deque[tuple[int, int, int]] = deque()
        """Time, area up to then, and the level from then on."""

    def change(self, level: int, now_us: int) -> None:
        """A request came or ended: from now on so many are in flight."""
        if self.first_us < 0:
            self.first_us = now_us
        self.area += self.level * (now_us - self.since_us)
        self.since_us = now_us
        if level > self.level and level > self.peak:
            self.peak = level
        self.level = level
        self.changes.append((now_us, self.area, level))

    def area_at(self, now_us: int) -> int:
        return self.area + self.level * (now_us - self.since_us)

    def open_window(self, at_us: int) -> None:
        """The peak starts from 0, even where requests are in flight."""
        self.window_area, self.window_since_us, self.peak = self.area_at(at_us), at_us, 0

    def close_window(self, now_us: int) -> Seen:
        """What was seen since the window was opened, and open the next."""
        width_us = now_us - self.window_since_us
        mean = (self.area_at(now_us) - self.window_area) / width_us if width_us > 0 else 0.0
        seen = Seen(mean, float(self.peak))
        self.open_window(now_us)
        return seen

    def load(self, now_us: int, *, silence_before: bool) -> float:
        """Mean concurrency over the last five seconds.

        `silence_before`: the time before the very first request counts as zero load. Else the mean
        is taken from that request on.
        """
        if self.first_us < 0:
            return 0.0
        changes, from_us = self.changes, now_us - LOAD_SPAN_US
        while len(changes) > 1 and changes[1][0] <= from_us:
            changes.popleft()
        at_us, area, level = changes[0]
        if at_us > from_us:  # only before the first request was nothing in flight
            span_us = LOAD_SPAN_US if silence_before else now_us - self.first_us
            return self.area_at(now_us) / span_us if span_us > 0 else float(self.level)
        return (self.area_at(now_us) - area - level * (from_us - at_us)) / LOAD_SPAN_US
