"""What was forecast and has not come to pass yet. Pure.

In: what was told in a bin. Out: for each horizon what was told so many bins before, once that bin
has come. Never: keeps anything for longer than the farthest horizon.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    def __init__(self, horizons: tuple[int, ...]) -> None:
        self._horizons = horizons
        self._told: deque[tuple[int, T]] = deque()

    def tell(self, now: int, what: T) -> None:
        """What was forecast in bin `now`; not every bin has to tell."""
        self._told.append((now, what))

    def due(self, now: int) -> Iterator[tuple[int, T]]:
        """By the place of each horizon, what had been told of bin `now` at it."""
        while self._told and self._told[0][0] < now - self._horizons[-1]:
            self._told.popleft()
        told = dict(self._told)
        for place, ahead in enumerate(self._horizons):
            if now - ahead in told:
                yield place, told[now - ahead]
