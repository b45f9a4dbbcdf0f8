"""Imported rows into the history's file, beside a running gateway or without one. An edge.

In: rows that were prepared. Out: how many were written and how many of a gateway's own stay. All in
one transaction; the same rows once more change nothing. Never: touches what a gateway measured
unless it is told to replace it, and then also drops the finer rows of those windows, from which the
old ones would be folded again.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from placement.catalog import Frozen
from prewarm import history_sql as sql
from prewarm.importing import Merge, merge
from prewarm.windows import US, HistoryRow

BUSY_MS = 10_000
"""A gateway's transaction takes milliseconds; another import's some seconds."""


class CannotStoreError(Exception):
    """The file cannot be written; the text says why. Nothing was changed."""


class Stored(Frozen, frozen=True, kw_only=True):
    written: int
    replaced: int
    """Of the written: in whose place the gateway's own stood."""
    kept: int
    kept_partly: int


Rows = Mapping[int, list[HistoryRow]]


def store(path: Path, rows: Rows, *, replace: bool = False) -> Stored:
    """Raises `CannotStoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.closing(sql.connect(path, busy_ms=BUSY_MS)) as db, db:
            db.execute("BEGIN IMMEDIATE")
            merged = _merged(db, rows, replace=replace)
            for part in merged:
                sql.drop_within(db, part.replaced)
                sql.put_imported(db, part.write)
    except (sqlite3.Error, sql.UnreadableError, msgspec.MsgspecError, OSError) as error:
        raise CannotStoreError(f"{path} cannot be written: {error}") from None
    return _stored(merged)


def would_store(path: Path, rows: Rows, *, replace: bool = False) -> Stored:
    """What `store` would do now. Raises `CannotStoreError`."""
    try:
        with contextlib.closing(sql.connect_to_read(path, busy_ms=BUSY_MS)) as db:
            return _stored(_merged(db, rows, replace=replace))
    except sql.EmptyError:
        pass
    except (sqlite3.Error, sql.UnreadableError, msgspec.MsgspecError) as error:
        if path.exists():
            raise CannotStoreError(f"{path} cannot be read: {error}") from None
    return _stored([merge(some, {}, replace=replace) for some in rows.values()])


def _merged(db: sqlite3.Connection, rows: Rows, *, replace: bool) -> list[Merge]:
    """The widest first: replacing them drops finer rows, which are then written anew."""
    found = []
    for width_s in sorted(rows, reverse=True):
        some = rows[width_s]
        first_us = min((row.start_us for row in some), default=0)
        last_us = max((row.start_us for row in some), default=0)
        measured = sql.measured(db, width_s, first_us, last_us + width_s * US)
        found.append(merge(some, measured, replace=replace))
    return found


def _stored(merged: list[Merge]) -> Stored:
    return Stored(
        written=sum(len(part.write) for part in merged),
        replaced=sum(len(part.replaced) for part in merged),
        kept=sum(part.kept for part in merged),
        kept_partly=sum(part.kept_partly for part in merged),
    )
