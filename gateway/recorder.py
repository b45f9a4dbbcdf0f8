"""Closes demand windows on time and hands them to the history. An edge.

In: the gate's window book. Out: windows for the store's thread, which may take its time. Never:
waits for a disk while requests run.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.state_dir import history_file
from placement.catalog import HistoryKept
from placement.clock import Clock
from prewarm.history import History, HistoryState
from prewarm.windows import WindowBook

CLOSE_WALL_S = 5.0
LATE_US = 1000


class Recorder:
    """`start` when requests may come, `close` when none do any more.

    A scaled clock starts anew with every run, so what an earlier run wrote has no place in it.
    """

    def __init__(self, book: WindowBook, folder: Path, kept: HistoryKept, clock: Clock) -> None:
        self.path = history_file(folder, clock.scale)
        self._book = book
        self._clock = clock
        self._history = History(self.path, kept, fresh=clock.scale != 1.0)
        self._timer: asyncio.TimerHandle | None = None
        self.state: Callable[[], HistoryState] = self._history.state
        self.keep = self._history.keep

    def start(self) -> None:
        left_us = self._book.end_us - self._clock.now_us()
        wall_s = max(self._clock.wall_s(left_us + LATE_US), 0.0)
        self._timer = asyncio.get_running_loop().call_later(wall_s, self._roll)

    def _roll(self) -> None:
        now_us = self._clock.now_us()
        self._book.roll(now_us)
        self._hand_over(now_us)
        self.start()

    def _hand_over(self, now_us: int) -> None:
        if windows := self._book.take():
            self._history.add(windows, now_us)

    async def close(self) -> None:
        """The windows under way are written as far as they came."""
        if self._timer is not None:
            self._timer.cancel()
        now_us = self._clock.now_us()
        self._history.add(self._book.finish(now_us), now_us)
        await asyncio.to_thread(self._history.close, CLOSE_WALL_S)
