"""The history's tables and statements. An edge.

In: an open database. Out: windows and rows. Never: decides when to write or what to fold.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from prewarm.windows import US, HistoryRow, Window

VERSION = 1
_MAGIC = 0x57544944  # "WTID": whose file this is

_SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
  width_s INTEGER NOT NULL, start_us INTEGER NOT NULL, model TEXT NOT NULL,
  offered INTEGER NOT NULL, retries INTEGER NOT NULL, refused INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  conc_mean REAL NOT NULL, conc_max INTEGER NOT NULL,
  conc_p50 INTEGER NOT NULL, conc_p95 INTEGER NOT NULL, covered_s REAL NOT NULL,
  levels_us BLOB NOT NULL,
  PRIMARY KEY (width_s, start_us, model)
) WITHOUT ROWID
"""
_COLUMNS = HistoryRow.__struct_fields__
_PUT = (
    f"INSERT OR REPLACE INTO windows ({', '.join(_COLUMNS)}, levels_us) "
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
_UNCOUNTED = b"\x80"
"""No time at any concurrency: an imported row, of which nobody counted what ran at once. What a
gateway measured has spent its covered time at some concurrency."""
_INTEGER_MAX = 2**63 - 1
"""What SQLite's integers hold. Counts of tokens are engines' words, and sums of them."""
_COUNTS = ("offered", "retries", "refused", "prompt_tokens", "output_tokens")
_WINDOW = f"SELECT model, start_us, width_s, {', '.join(_COUNTS)}, levels_us FROM windows"
_LEVELS = msgspec.msgpack.Decoder(dict[int, int])


class UnreadableError(Exception):
    """The file is no history of ours; the text says what it is."""


class EmptyError(Exception):
    """The file has only just been made: nothing is in it yet."""


def connect(path: Path, *, busy_ms: int) -> sqlite3.Connection:
    """Open to write. Raises `UnreadableError`, or `sqlite3.Error` where another try may help.

    A write-ahead log survives the end of the process at any moment; of a machine that loses its
    power the last transactions may be missing, but none by half.
    """
    db = sqlite3.connect(path, timeout=busy_ms / 1000)
    try:
        _check(db)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        with db:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA application_id={_MAGIC}")
            db.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def connect_to_read(path: Path, *, busy_ms: int) -> sqlite3.Connection:
    """Open beside a writer, changing nothing. Raises `EmptyError`, `UnreadableError`."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=busy_ms / 1000)
    try:
        there = _check(db)
    except BaseException:
        db.close()
        raise
    if not there:
        db.close()
        raise EmptyError
    return db


def _check(db: sqlite3.Connection) -> bool:
    """Whether there are tables of ours already. Raises `UnreadableError`."""
    try:
        (magic,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        raise  # locked, or a full disk: it may pass
    except sqlite3.DatabaseError as error:
        raise UnreadableError(f"this is no database: {error}") from None
    if magic not in (0, _MAGIC) or version > VERSION:
        raise UnreadableError(
            f"written by another program or a newer Warmtide (version {version}; this one reads "
            f"{VERSION})"
        )
    return bool(version)


def put(db: sqlite3.Connection, window: Window) -> None:
    db.execute(_PUT, (*_stored(window.row()), msgspec.msgpack.encode(window.levels_us)))


def put_imported(db: sqlite3.Connection, rows: Iterable[HistoryRow]) -> None:
    db.executemany(_PUT, ((*_stored(row), _UNCOUNTED) for row in rows))


def _stored(row: HistoryRow) -> Iterator[object]:
    for value in msgspec.structs.astuple(row):
        yield min(value, _INTEGER_MAX) if isinstance(value, int) else value


def measured(
    db: sqlite3.Connection, width_s: int, from_us: int, before_us: int
) -> dict[tuple[int, str], bool]:
    """Start and model of the rows that a gateway measured, and whether it watched them whole."""
    found = db.execute(
        "SELECT start_us, model, covered_s >= 0.999 * width_s FROM windows "
        "WHERE width_s = ? AND start_us >= ? AND start_us < ? "
        "AND NOT (levels_us = ? AND covered_s > 0)",
        (width_s, from_us, before_us, _UNCOUNTED),
    )
    return {(start_us, model): bool(whole) for start_us, model, whole in found}


def drop_within(db: sqlite3.Connection, rows: Iterable[HistoryRow]) -> None:
    """The finer rows of these rows' models and windows."""
    db.executemany(
        "DELETE FROM windows WHERE width_s < ? AND start_us >= ? AND start_us < ? AND model = ?",
        ((r.width_s, r.start_us, r.start_us + r.width_s * US, r.model) for r in rows),
    )


def one(db: sqlite3.Connection, model: str, width_s: int, start_us: int) -> Window | None:
    where = " WHERE width_s = ? AND start_us = ? AND model = ?"
    found = db.execute(_WINDOW + where, (width_s, start_us, model)).fetchone()
    return None if found is None else _window(found)


def windows(db: sqlite3.Connection, width_s: int, from_us: int, before_us: int) -> Iterator[Window]:
    where = " WHERE width_s = ? AND start_us >= ? AND start_us < ? ORDER BY start_us, model"
    yield from map(_window, db.execute(_WINDOW + where, (width_s, from_us, before_us)))


def starts(
    db: sqlite3.Connection, width_s: int, from_us: int, before_us: int, coarse_us: int
) -> list[int]:
    """Starts of the coarse windows in which something of this width is stored."""
    found = db.execute(
        "SELECT DISTINCT start_us / ? * ? FROM windows "
        "WHERE width_s = ? AND start_us >= ? AND start_us < ? ORDER BY 1",
        (coarse_us, coarse_us, width_s, from_us, before_us),
    )
    return [start for (start,) in found]


def last_start_us(db: sqlite3.Connection, width_s: int, before_us: int) -> int | None:
    """Of the rows of a time that has come: a clock that once ran ahead has left others. Imported
    rows say nothing about what was folded."""
    query = (
        "SELECT start_us FROM windows WHERE width_s = ? AND start_us < ? AND levels_us <> ? "
        "ORDER BY start_us DESC LIMIT 1"
    )
    last = db.execute(query, (width_s, before_us, _UNCOUNTED)).fetchone()
    return None if last is None else last[0]


def drop_before(db: sqlite3.Connection, width_s: int, before_us: int) -> None:
    db.execute("DELETE FROM windows WHERE width_s = ? AND start_us < ?", (width_s, before_us))


def rows(
    db: sqlite3.Connection,
    width_s: int,
    model: str | None,
    from_us: int,
    to_us: int,
    newest: int | None,
) -> Iterator[HistoryRow]:
    """In order of time, then model; where there are more than `newest`, the last of them."""
    query = (
        f"SELECT {', '.join(_COLUMNS)} FROM windows "
        "WHERE width_s = ? AND start_us >= ? AND start_us < ?"
    )
    values: tuple[object, ...] = (width_s, from_us, to_us)
    if model is not None:
        query, values = query + " AND model = ?", (*values, model)
    if newest is not None:
        query += " ORDER BY start_us DESC, model DESC LIMIT ?"
        query, values = f"SELECT * FROM ({query})", (*values, newest)
    for found in db.execute(query + " ORDER BY start_us, model", values):
        yield HistoryRow(**dict(zip(_COLUMNS, found, strict=True)))


def _window(found: tuple[object, ...]) -> Window:
    """Raises `sqlite3.DatabaseError`, as SQLite does for what it can see of a damaged file."""
    model, start_us, width_s, *counts, levels = found
    row = {"model": model, "start_us": start_us, "width_s": width_s}
    row |= dict(zip(_COUNTS, counts, strict=True))
    try:
        assert isinstance(levels, bytes)
        return msgspec.convert({**row, "levels_us": _LEVELS.decode(levels)}, type=Window)
    except (AssertionError, msgspec.MsgspecError) as error:
        raise sqlite3.DatabaseError(f"a row of it is damaged: {error}") from None
