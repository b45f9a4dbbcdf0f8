"""What happens when: the one queue of events that moves a simulation on.

In: moments and what to do then. Out: calls, in order of time and, within one moment, of asking.
Never: lets time run backwards, compares two deeds.
"""

import heapq
from collections.abc import Callable

Act = Callable[[], None]


class Agenda:
    """A heap of (time, order of asking, deed). Whatever was made void is left to say so itself."""

    __slots__ = ("_heap", "_order", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self._order = 0
        self._heap: list[tuple[int, int, Act]] = []

    def at(self, when_us: int, act: Act) -> None:
        assert when_us >= self.now_us, "the past is closed"
        self._order += 1
        heapq.heappush(self._heap, (when_us, self._order, act))

    def next_us(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def run_before(self, end_us: int, after_each: Act | None = None) -> None:
        """Do everything that falls before this moment, then stand at it."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] < end_us:
            self.now_us, _, act = pop(heap)
            act()
            if after_each is not None:
                after_each()
        self.now_us = max(self.now_us, end_us)

    def step(self) -> None:
        """Do what comes next."""
        self.now_us, _, act = heapq.heappop(self._heap)
        act()
