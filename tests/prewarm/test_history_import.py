"""Imported demand: as good as measured to who reads it, never in the way of who measures."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from placement.catalog import HistoryKept
from prewarm.calendars import US, Calendar
from prewarm.history import History, read_rows
from prewarm.history_import import CannotStoreError, Stored, store, would_store
from prewarm.importing import CannotImportError, Naming, Parts, name_columns, prepare
from prewarm.series import Panel
from prewarm.windows import FINE_US, HistoryRow, Window
from tests.prewarm.test_history import until

START_US = 1_700_000_100 * US  # the beginning of a five-minute window
FIVE_US = 300 * US
NOW_US = START_US + 86_400 * US
KEPT = HistoryKept()
HOLE = np.nan


def panel(
    columns: dict[str, list[float]], *, width_s: int = 300, start_us: int = START_US
) -> Panel:
    values = np.array(list(columns.values()), np.float64).T
    calendar = Calendar(start_us, width_s * US)
    return Panel(calendar=calendar, streams=tuple(columns), values=values)


def rows_of(
    given: Panel, *, now_us: int = NOW_US, kept: HistoryKept = KEPT, **mapped: str
) -> dict[int, list[HistoryRow]]:
    naming = name_columns(given.streams, mapped, None)
    return prepare("test", given, naming, kept, now_us).rows


def window(index: int, offered: int = 1, *, seconds: int = 10) -> Window:
    """What a gateway saw of model m, so many times ten seconds after the start."""
    return Window(
        model="m",
        start_us=START_US + index * FINE_US,
        width_s=10,
        offered=offered,
        levels_us={1: seconds * US},
    )


def measure(path: Path, *windows: Window, now_us: int) -> None:
    history = History(path, KEPT)
    history.add(list(windows), now_us)
    history.close(5)


def offered(path: Path, width_s: int = 300) -> dict[int, int]:
    """By window, counted from the start."""
    return {
        (row.start_us - START_US) // (width_s * US): row.offered for row in read_rows(path, width_s)
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


# --- what becomes a row


def test_a_hole_is_no_row_and_a_zero_is_one() -> None:
    rows = rows_of(panel({"m": [3, HOLE, 0]}))[300]
    assert [(r.start_us - START_US, r.offered, r.covered_s) for r in rows] == [
        (0, 3, 300.0),
        (2 * FIVE_US, 0, 300.0),
    ]


def test_minutes_become_rows_of_a_minute_and_of_five() -> None:
    rows = rows_of(panel({"m": [1, 2, 3, 4, 5, 6, HOLE, 8, 9, 10]}, width_s=60))
    assert [r.offered for r in rows[60]] == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert [r.offered for r in rows[300]] == [15], "the second five minutes have a hole"


def test_finer_rows_are_added_up_to_minutes() -> None:
    rows = rows_of(panel({"m": [1, 2, 3, 4, 5, 6]}, width_s=10))
    assert [r.offered for r in rows[60]] == [21]


def test_wider_rows_are_refused_with_what_to_do() -> None:
    with pytest.raises(CannotImportError, match="1 h apart: the history keeps windows of 1"):
        rows_of(panel({"m": [1, 2]}, width_s=3600))


def test_the_future_is_refused_and_the_window_under_way_left_out() -> None:
    given = panel({"m": [1, 2, 3]})
    now_us = START_US + 2 * FIVE_US + 1
    assert [r.offered for r in rows_of(given, now_us=now_us)[300]] == [1, 2]
    with pytest.raises(CannotImportError, match="still to come"):
        rows_of(given, now_us=START_US + 2 * FIVE_US - 1)


def test_what_the_store_would_drop_at_once_is_left_out_and_told() -> None:
    kept = HistoryKept(minutes_us=FIVE_US, five_us=10**16)
    given = panel({"m": list(range(10))}, width_s=60)
    now_us = START_US + 10 * 60 * US
    prepared = prepare("test", given, name_columns(given.streams, {}, None), kept, now_us)
    assert [r.offered for r in prepared.rows[60]] == [5, 6, 7, 8, 9]
    assert [r.offered for r in prepared.rows[300]] == [10, 35]
    assert prepared.remarks == ("5 windows of 1 min older than the history keeps them, left out",)


def test_windows_between_the_stores_own_are_moved_and_told() -> None:
    given = panel({"m": [1, 2]}, start_us=START_US + 240 * US)
    prepared = prepare("test", given, name_columns(given.streams, {}, None), KEPT, NOW_US)
    assert [r.start_us - START_US for r in prepared.rows[300]] == [FIVE_US, 2 * FIVE_US]
    assert prepared.remarks == ("all windows moved by 1 min, onto whole 5 min",)


def test_tokens_belong_to_the_requests_of_their_name() -> None:
    given = panel({"m": [2], "m_input_tokens": [70], "m_output_tokens": [HOLE], "n": [1]})
    first, second = rows_of(given)[300]
    assert (first.model, first.offered, first.prompt_tokens, first.output_tokens) == ("m", 2, 70, 0)
    assert (second.model, second.offered) == ("n", 1)


def test_names_of_one_model_add_up_and_strangers_are_listed() -> None:
    known = {"llama": "llama", "gpt-4o-mini": "llama", "qwen": "qwen"}
    streams = ["llama", "gpt-4o-mini", "c0", "c1", "c1_prompt_tokens"]
    assert name_columns(streams, {"c0": "qwen"}, known) == Naming(
        {
            "llama": Parts(["llama", "gpt-4o-mini"], [], []),
            "qwen": Parts(["c0"], [], []),
        },
        ("c1", "c1_prompt_tokens"),
    )


# --- what stands in the store


def test_imported_twice_is_imported_once(path: Path) -> None:
    rows = rows_of(panel({"m": [3, 4]}))
    assert store(path, rows) == Stored(written=2, replaced=0, kept=0, kept_partly=0)
    before = list(read_rows(path, 300))
    assert store(path, rows).written == 2
    assert list(read_rows(path, 300)) == before
    store(path, rows_of(panel({"m": [5, HOLE]})))
    assert offered(path) == {0: 5, 1: 4}, "a later import corrects an earlier one"


def test_what_a_gateway_measured_stays_unless_it_is_to_be_replaced(path: Path) -> None:
    whole = [window(i) for i in range(30)]
    partly = [window(i, seconds=4) for i in range(30, 33)]
    measure(path, *whole, *partly, now_us=START_US + 2 * FIVE_US)
    rows = rows_of(panel({"m": [100, 200, 300]}))
    assert would_store(path, rows) == Stored(written=1, replaced=0, kept=2, kept_partly=1)
    assert store(path, rows) == Stored(written=1, replaced=0, kept=2, kept_partly=1)
    assert offered(path) == {0: 30, 1: 3, 2: 300}
    assert store(path, rows, replace=True) == Stored(written=3, replaced=2, kept=0, kept_partly=0)
    assert offered(path) == {0: 100, 1: 200, 2: 300}


def test_what_was_replaced_is_not_folded_again_from_finer_rows(path: Path) -> None:
    measure(path, *[window(i) for i in range(30)], now_us=START_US + FIVE_US)
    store(path, rows_of(panel({"m": [100]})), replace=True)
    assert list(read_rows(path, 10)) == list(read_rows(path, 60)) == []
    measure(path, window(30), now_us=START_US + 2 * FIVE_US)
    assert offered(path) == {0: 100, 1: 1}


def test_minutes_in_place_of_measured_ones_survive_the_five_minutes_above_them(path: Path) -> None:
    measure(path, *[window(i) for i in range(30)], now_us=START_US + FIVE_US)
    store(path, rows_of(panel({"m": [1, 2, 3, 4, 5]}, width_s=60)), replace=True)
    assert offered(path, 60) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
    assert offered(path) == {0: 15}


def test_a_gateway_folds_what_it_owed_though_newer_rows_were_imported(path: Path) -> None:
    """It was killed in the middle of a window; the import reaches beyond that."""
    measure(path, *[window(i) for i in range(20)], now_us=START_US + 200 * US)
    store(path, rows_of(panel({"n": [7, 7, 7]})))
    store(path, rows_of(panel({"m": [HOLE, 50, 50]})))
    measure(path, window(90), now_us=START_US + 4 * FIVE_US)
    mine = {r.start_us: r.offered for r in read_rows(path, 300, model="m")}
    assert mine == {
        START_US: 20,
        START_US + FIVE_US: 50,
        START_US + 2 * FIVE_US: 50,
        START_US + 3 * FIVE_US: 1,
    }


def test_a_gateways_own_rows_go_on_after_an_import(path: Path) -> None:
    store(path, rows_of(panel({"m": [7] * 10}, start_us=START_US - 10 * FIVE_US)))
    measure(path, *[window(i) for i in range(60)], now_us=START_US + 2 * FIVE_US)
    assert offered(path) == {**dict.fromkeys(range(-10, 0), 7), 0: 30, 1: 30}


def test_a_dry_run_makes_no_file(path: Path) -> None:
    assert would_store(path, rows_of(panel({"m": [1]}))).written == 1
    assert not path.parent.exists()


def test_beside_a_gateway_that_writes_nothing_of_either_is_lost(path: Path) -> None:
    history = History(path, KEPT)
    history.add([window(0)], START_US + FINE_US)
    until(lambda: not history.state().pending)
    past = {f"m{i}": [5.0] * 2000 for i in range(10)}
    rows = rows_of(panel(past, start_us=START_US - 2000 * FIVE_US))
    importing = threading.Thread(target=store, args=(path, rows))
    importing.start()
    for index in range(1, 200):
        history.add([window(index)], START_US + (index + 1) * FINE_US)
    importing.join()
    until(lambda: not history.state().pending)
    history.close(5)
    assert history.state().dropped == 0
    assert len(list(read_rows(path, 10))) == 200
    coarse = list(read_rows(path, 300))
    assert len([r for r in coarse if r.model == "m"]) == 6
    assert sum(r.offered for r in coarse if r.model != "m") == 10 * 2000 * 5


def test_a_file_that_another_holds_is_told_and_nothing_is_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prewarm.history_import.BUSY_MS", 50)
    rows = rows_of(panel({"m": [1]}))
    store(path, rows)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CannotStoreError, match="locked"):
            store(path, rows_of(panel({"m": [2]})))
        other.execute("ROLLBACK")
    assert offered(path) == {0: 1}


def test_a_file_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("my diary")
    for act in (store, would_store):
        with pytest.raises(CannotStoreError):
            act(path, rows_of(panel({"m": [2]})))
    assert path.read_text() == "my diary"
