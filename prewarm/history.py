"""The demand of the past, in SQLite: what a restart must not forget. An edge.

In: closed windows, from the event loop, which never waits for the disk. Out: rows as
`definitions.md` has them, in widths of 10 s, 1 min and 5 min. A thread of its own writes; what
cannot be written waits in memory, within bounds, and `state()` says why. Coarser rows are folded
from the stored fine ones once their time is over, so a killed gateway's folds are made by the next.
"""

import contextlib
import itertools
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from placement.catalog import Frozen, HistoryKept
from prewarm import history_sql as sql
from prewarm.windows import COARSE_S, FINE_S, US, HistoryRow, Window, fold

log = logging.getLogger("warmtide.history")

PENDING_MAX = 20_000
"""Windows kept in memory while the disk refuses them: 40 models for over an hour."""

_BUSY_MS = 1000
_RETRY_WALL_S = (0.5, 30.0)
_PRUNE_US = 600 * US


class HistoryState(Frozen, frozen=True, kw_only=True):
    """How the store does. `problem` is empty while all is well; `upto_us` is what is on disk."""

    problem: str = ""
    pending: int = 0
    dropped: int = 0
    upto_us: int = 0


class _Batch(NamedTuple):
    windows: list[Window]
    now_us: int


class History:
    """The writer. `add` from the event loop, `close` at the end; everything else is its thread's.

    `fresh`: what an earlier run wrote is of no use and goes.
    """

    def __init__(self, path: Path, kept: HistoryKept, *, fresh: bool = False) -> None:
        self._path = path
        self._kept = kept
        self._fresh = fresh
        self._lock = threading.Lock()
        self._pending: deque[_Batch] = deque()
        self._pending_windows = 0
        self._dropped = 0
        self._upto_us = 0
        self._pruned_us = 0
        self._problem = ""
        self._news = threading.Event()
        self._closing = threading.Event()
        self._db: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def add(self, windows: list[Window], now_us: int) -> None:
        """Hand windows over. Returns at once, whatever the disk does."""
        with self._lock:
            self._pending.append(_Batch(windows, now_us))
            self._pending_windows += len(windows)
            while self._pending_windows > PENDING_MAX and len(self._pending) > 1:
                lost = len(self._pending.popleft().windows)
                self._pending_windows -= lost
                self._dropped += lost
        if self._thread.ident is None:
            self._thread.start()
        self._news.set()

    def keep(self, kept: HistoryKept) -> None:
        """A changed catalog's retention, from the next pruning on."""
        self._kept = kept
        self._pruned_us = 0

    def state(self) -> HistoryState:
        with self._lock:
            return HistoryState(
                problem=self._problem,
                pending=self._pending_windows,
                dropped=self._dropped,
                upto_us=self._upto_us,
            )

    def close(self, patience_s: float) -> None:
        """Write what is left, for at most so long."""
        self._closing.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(patience_s)
        left = self.state()
        if left.pending:
            log.error("history: %d windows were not written: %s", left.pending, left.problem)

    # --- the thread

    def _run(self) -> None:
        pause_s = _RETRY_WALL_S[0]
        while True:
            self._news.wait()
            self._news.clear()
            if self._write_all():
                pause_s = _RETRY_WALL_S[0]
            else:
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _RETRY_WALL_S[1])
                self._news.set()
            if self._closing.is_set():
                self._write_all()
                self._disconnect()
                return

    def _write_all(self) -> bool:
        """Everything that waits, batch by batch. False, and the rest waits on, if one failed."""
        while True:
            with self._lock:
                batch = self._pending[0] if self._pending else None
            if batch is None:
                return True
            try:
                self._write(batch)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
                return False
            self._written(batch)

    def _write(self, batch: _Batch) -> None:
        """All of it in one transaction. A file found broken is laid aside, and the next try begins
        a new one."""
        if self._db is None:
            self._db = self._connect()
        try:
            with self._db:
                _store(self._db, batch.windows)
                _fold_ended(self._db, batch.now_us)
                if batch.now_us - self._pruned_us > _PRUNE_US:
                    _prune(self._db, self._kept, batch.now_us)
                    self._pruned_us = batch.now_us
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:  # "malformed"; a full disk is a subclass
                self._disconnect()
                self._lay_aside(error)
            raise

    def _written(self, batch: _Batch) -> None:
        with self._lock:
            if self._pending and self._pending[0] is batch:
                self._pending.popleft()
                self._pending_windows -= len(batch.windows)
            self._upto_us = max([self._upto_us, *(w.start_us for w in batch.windows)])
            healed, self._problem = bool(self._problem), ""
        if healed:
            log.warning("history: written again, nothing is pending")

    def _failed(self, error: Exception) -> None:
        self._disconnect()
        problem = f"{self._path}: {error}"
        with self._lock:
            known, self._problem = self._problem == problem, problem
        if not known:
            log.error("history cannot be written, requests go on without it: %s", problem)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._fresh:
            for file in (self._path, *_companions(self._path)):
                file.unlink(missing_ok=True)
            self._fresh = False
        try:
            return sql.connect(self._path, busy_ms=_BUSY_MS)
        except sql.UnreadableError as error:
            self._lay_aside(error)
            return sql.connect(self._path, busy_ms=_BUSY_MS)

    def _lay_aside(self, why: Exception) -> None:
        names = (self._path.with_suffix(f".unreadable-{i}") for i in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        log.error(
            "history: %s: %s; laid aside as %s, a new one begins", self._path, why, aside.name
        )
        self._path.replace(aside)
        for file in _companions(self._path):
            file.unlink(missing_ok=True)

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _companions(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm"))


# --- one transaction


def _store(db: sqlite3.Connection, windows: Iterable[Window]) -> None:
    """What a restarted gateway saw of a window is added to what the former one saw of it."""
    for window in windows:
        known = sql.one(db, window.model, window.width_s, window.start_us)
        whole = fold([known, window], window.start_us, window.width_s) if known else window
        sql.put(db, whole)


def _fold_ended(db: sqlite3.Connection, now_us: int) -> None:
    """Make the coarse rows whose time is over and that are not there yet."""
    for width_s in COARSE_S:
        width_us = width_s * US
        after_us = sql.last_start_us(db, width_s)
        since_us = 0 if after_us is None else after_us + width_us
        until_us = now_us // width_us * width_us
        for start_us in sql.starts(db, FINE_S, since_us, until_us, width_us):
            parts: dict[str, list[Window]] = {}
            for part in sql.windows(db, FINE_S, start_us, start_us + width_us):
                parts.setdefault(part.model, []).append(part)
            for seen in parts.values():
                sql.put(db, fold(seen, start_us, width_s))


def _prune(db: sqlite3.Connection, kept: HistoryKept, now_us: int) -> None:
    for width_s, keep_us in ((FINE_S, kept.fine_us), (60, kept.minutes_us), (300, kept.five_us)):
        sql.drop_before(db, width_s, now_us - keep_us)


# --- reading


class NoHistoryError(Exception):
    """There is nothing to read; the text says where it was looked for."""


def read_rows(
    path: Path, width_s: int, *, model: str | None = None, from_us: int = 0
) -> Iterator[HistoryRow]:
    """Rows in order of time, then model. Beside a writing gateway too. Raises `NoHistoryError`."""
    with _reading(path) as db:
        if sql.has_table(db):
            yield from sql.rows(db, width_s, model, from_us)


def newest_start_us(path: Path, width_s: int) -> int:
    """When the newest row of this width starts; 0 where there is none. Raises `NoHistoryError`."""
    with _reading(path) as db:
        return (sql.last_start_us(db, width_s) or 0) if sql.has_table(db) else 0


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise NoHistoryError(f"there is no history yet: {path}")
    try:
        with contextlib.closing(sql.connect_to_read(path, busy_ms=_BUSY_MS)) as db:
            yield db
    except (sqlite3.Error, sql.UnreadableError, msgspec.MsgspecError) as error:
        raise NoHistoryError(f"{path} cannot be read: {error}") from None
