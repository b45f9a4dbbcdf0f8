"""The only place that reads the time. An edge.

Trace time: wall time since the process epoch, times `scale`. With `scale` 20 a fleet lives
twenty trace seconds in one wall second; everything that decides sees trace microseconds only.
"""

import time

US = 1_000_000


class Clock:
    """Trace microseconds since the Unix epoch, running `scale` times faster than the wall.

    The anchor is shared by all processes of a fleet, so their trace times agree.
    """

    __slots__ = ("anchor_us", "scale")

    def __init__(self, scale: float = 1.0, anchor_us: int | None = None) -> None:
        assert scale > 0, "a clock that stands still or runs back is no clock"
        self.scale = scale
        self.anchor_us = wall_us() if anchor_us is None else anchor_us

    def now_us(self) -> int:
        """Trace time now, in microseconds."""
        # Asked several times a request: hence `wall_us` written out.
        wall = _EPOCH_US + _monotonic_ns() // 1000
        if self.scale == 1.0:
            return wall
        return self.anchor_us + int((wall - self.anchor_us) * self.scale)

    def wall_s(self, trace_us: float) -> float:
        """How many wall seconds a span of trace microseconds lasts."""
        return trace_us / US / self.scale

    def trace_us(self, wall_s: float) -> int:
        """How many trace microseconds pass in a span of wall seconds."""
        return int(wall_s * US * self.scale)


_monotonic_ns = time.monotonic_ns
_EPOCH_US = time.time_ns() // 1000 - time.monotonic_ns() // 1000


def wall_us() -> int:
    """Wall time in microseconds since the Unix epoch, immune to clock jumps after start."""
    return _EPOCH_US + time.monotonic_ns() // 1000


def monotonic_us() -> int:
    """A monotonic reading for spans inside one process, in wall microseconds."""
    return time.monotonic_ns() // 1000
