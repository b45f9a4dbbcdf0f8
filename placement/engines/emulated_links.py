"""Transitions under way on one node: fixed times, and bytes over shared links.

In: `edges.Edge`s that begin and are cancelled, and the time. Out: which ended when, and the next
time at which one may end. Never: reads a clock, knows what a transition means.

All streams of a node on one kind of link share it fairly (`edges.stream_rate`); shares are
reckoned anew whenever a transfer begins or ends.
"""

import math
from typing import NamedTuple

from placement.catalog import Links
from placement.edges import Edge, Link, Transfer, stream_rate

US = 1_000_000


class Ended(NamedTuple):
    key: str
    at_us: int


class _Moving:
    """One edge under way: waiting out its fixed time, or with bytes on a link."""

    __slots__ = ("fixed_until_us", "left_bytes", "legs", "slowdown", "streams")

    def __init__(self, edge: Edge, slowdown: float, now_us: int) -> None:
        self.fixed_until_us = now_us + edge.fixed_us
        self.legs = list(edge.transfers)
        self.slowdown = slowdown
        self.left_bytes = 0.0
        self.streams = 0

    @property
    def leg(self) -> Transfer | None:
        return self.legs[0] if self.legs and self.streams else None


class Movers:
    """All transitions of a node. Calls come in order of time."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._moving: dict[str, _Moving] = {}
        self._now_us = 0

    def begin(self, key: str, edge: Edge, now_us: int, slowdown: float = 1.0) -> None:
        assert key not in self._moving, f"{key} is already under way"
        self._settle(now_us)
        self._moving[key] = _Moving(edge, max(slowdown, 1.0), now_us)

    def cancel(self, key: str, now_us: int) -> None:
        self._settle(now_us)
        self._moving.pop(key, None)

    def next_us(self) -> int | None:
        """When the next phase of any transition ends, if nothing else begins."""
        return min((self._phase_end_us(m) for m in self._moving.values()), default=None)

    def flows(self) -> dict[Link, float]:
        """Bytes per second that cross each kind of link now, all streams together."""
        found: dict[Link, float] = {}
        for moving in self._moving.values():
            if (leg := moving.leg) is not None:
                found[leg.link] = found.get(leg.link, 0.0) + self._rate(moving, leg) * leg.streams
        return found

    def advance(self, now_us: int) -> list[Ended]:
        """End every phase that ends by `now_us`; the transitions that ended, in order of time."""
        ended: list[Ended] = []
        while (at_us := self.next_us()) is not None and at_us <= now_us:
            at_us = max(at_us, self._now_us)
            due = [k for k, m in self._moving.items() if self._phase_end_us(m) <= at_us]
            self._settle(at_us)
            for key in due:
                if self._next_leg(self._moving[key]):
                    continue
                del self._moving[key]
                ended.append(Ended(key, at_us))
        self._settle(now_us)
        return ended

    def _next_leg(self, moving: _Moving) -> bool:
        """Go on to the next transfer; False if there is none left."""
        if moving.streams:
            moving.legs.pop(0)
            moving.streams = 0
        if not moving.legs:
            return False
        leg = moving.legs[0]
        moving.left_bytes, moving.streams = float(leg.bytes_per_stream), leg.streams
        return True

    def _rate(self, moving: _Moving, leg: Transfer) -> float:
        return stream_rate(self._links, leg.link, self._streams_on(leg.link)) / moving.slowdown

    def _streams_on(self, link: Link) -> int:
        return sum(m.streams for m in self._moving.values() if m.leg and m.leg.link is link)

    def _phase_end_us(self, moving: _Moving) -> int:
        leg = moving.leg
        if leg is None:
            return moving.fixed_until_us
        return self._now_us + math.ceil(moving.left_bytes / self._rate(moving, leg) * US)

    def _settle(self, now_us: int) -> None:
        """Move every transfer on by the time that passed since the last call."""
        passed_s = max(now_us - self._now_us, 0) / US
        if passed_s:
            moved = [(m, self._rate(m, m.leg) * passed_s) for m in self._moving.values() if m.leg]
            for moving, moved_bytes in moved:
                moving.left_bytes = max(moving.left_bytes - moved_bytes, 0.0)
        self._now_us = max(now_us, self._now_us)
