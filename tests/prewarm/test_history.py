"""The history forgets nothing that it has said it wrote, whatever happens to disk or process."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from placement.catalog import HistoryKept
from prewarm.history import History, NoHistoryError, read_rows
from prewarm.windows import FINE_US, US, HistoryRow, Window

START_US = 1_700_000_100 * US  # the beginning of a five-minute window
KEPT = HistoryKept()


def window(index: int, offered: int = 1, model: str = "m", **more: object) -> Window:
    """The window so many times ten seconds after the start, at concurrency one throughout."""
    fields = {"levels_us": {1: FINE_US}, **more}
    start_us = START_US + index * FINE_US
    return Window(model=model, start_us=start_us, width_s=10, offered=offered, **fields)  # type: ignore[arg-type]


def end_of(index: int) -> int:
    return START_US + (index + 1) * FINE_US


def until(holds: Callable[[], object]) -> None:
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("never came true")


def rows(path: Path, width_s: int = 10) -> list[HistoryRow]:
    return list(read_rows(path, width_s))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    made = History(path, KEPT)
    yield made
    made.close(5)


def write(history: History, *windows: Window, now_us: int) -> None:
    history.add(list(windows), now_us)
    until(lambda: not history.state().pending)


def test_minutes_and_five_minutes_are_folds_of_what_was_written(
    history: History, path: Path
) -> None:
    for index in range(30):
        write(history, window(index, offered=index), now_us=end_of(index))
    assert [r.offered for r in rows(path)] == list(range(30))
    assert [r.offered for r in rows(path, 60)] == [15, 51, 87, 123, 159]
    (five,) = rows(path, 300)
    assert (five.offered, five.covered_s, five.conc_mean) == (sum(range(30)), 300.0, 1.0)


def test_a_minute_is_not_told_before_it_is_over(history: History, path: Path) -> None:
    for index in range(5):
        write(history, window(index), now_us=end_of(index))
    assert rows(path, 60) == []


def test_a_restart_within_a_window_adds_to_it_and_its_minute_waits(path: Path) -> None:
    first = History(path, KEPT)
    write(first, window(5, levels_us={1: 4 * US}), now_us=START_US + 54 * US)
    first.close(5)
    again = History(path, KEPT)
    write(again, window(5, levels_us={3: 5 * US}), now_us=end_of(5))
    again.close(5)
    (fine,), (minute,) = rows(path), rows(path, 60)
    assert (fine.offered, fine.covered_s, fine.conc_max) == (2, 9.0, 3)
    assert (minute.offered, minute.covered_s) == (2, 9.0)


def test_a_fold_that_a_killed_gateway_owed_is_made_by_the_next(path: Path) -> None:
    first = History(path, KEPT)
    write(first, window(0), now_us=end_of(0))
    first.close(5)
    again = History(path, KEPT)
    later = 100 * 30  # a day's worth of windows later
    write(again, window(later), now_us=end_of(later))
    again.close(5)
    assert [r.start_us for r in rows(path, 300)] == [START_US]
    assert len(rows(path)) == 2, "what nobody watched is no row"


def test_old_rows_go_and_coarse_ones_stay_longer(path: Path) -> None:
    kept = HistoryKept(fine_us=900 * US, minutes_us=3600 * US, five_us=10**15)
    history = History(path, kept)
    for index in range(0, 1000, 10):
        write(history, window(index), now_us=end_of(index))
    history.close(5)
    now_us = end_of(990)
    slack_us = 700 * US  # it is pruned every ten minutes
    assert all(r.start_us >= now_us - kept.fine_us - slack_us for r in rows(path))
    assert all(r.start_us >= now_us - kept.minutes_us - slack_us for r in rows(path, 60))
    assert rows(path, 300)[0].start_us == START_US


def test_a_locked_database_is_told_and_nothing_is_lost(history: History, path: Path) -> None:
    write(history, window(0), now_us=end_of(0))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        history.add([window(1)], end_of(1))
        until(lambda: history.state().problem)
        assert "locked" in history.state().problem
        assert history.state().pending == 1
        other.execute("ROLLBACK")
    until(lambda: not history.state().pending)
    assert history.state().problem == ""
    assert len(rows(path)) == 2


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.prewarm.test_history import KEPT, History, end_of, until, window
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
history = History(Path(sys.argv[1]), KEPT)
index = 0
while not history.state().problem:
    history.add([window(index, model=f"m{i}") for i in range(200)], end_of(index))
    index += 1
    until(lambda: not history.state().pending or history.state().problem)
full = history.state()
assert full.pending, full
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
history.add([window(index)], end_of(index))
until(lambda: not history.state().pending)
history.close(5)
print(index * 200 + 1, full.problem)
"""


@pytest.mark.integration
def test_a_full_disk_is_told_and_what_waited_is_written_once_there_is_room(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, problem = done.stdout.split(maxsplit=1)
    assert "full" in problem or "I/O" in problem
    assert len(rows(path)) == int(count)


def test_what_waits_for_a_disk_that_never_comes_is_bounded_and_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file" / "history.db", KEPT)
    for index in range(30):
        history.add([window(index, model=f"m{i}") for i in range(1000)], end_of(index))
    until(lambda: history.state().problem)
    assert history.state().pending <= 20_000
    assert history.state().dropped >= 10_000
    history.close(0.1)


@pytest.mark.parametrize(
    "junk", [b"no database at all " * 500, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_file_that_is_no_history_is_laid_aside_and_kept(path: Path, junk: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(junk)
    history = History(path, KEPT)
    write(history, window(0), now_us=end_of(0))
    history.close(5)
    assert path.with_suffix(".unreadable-1").read_bytes() == junk
    assert len(rows(path)) == 1


def test_a_history_of_a_newer_warmtide_is_not_touched(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA application_id=1465141572")
        newer.execute("PRAGMA user_version=99")
        newer.execute("CREATE TABLE windows (something TEXT)")
        newer.commit()
    before = path.read_bytes()
    history = History(path, KEPT)
    write(history, window(0), now_us=end_of(0))
    history.close(5)
    assert path.with_suffix(".unreadable-1").read_bytes() == before


def test_counts_beyond_all_measure_do_not_end_the_writing(history: History, path: Path) -> None:
    """Engines tell the counts; a window of ten thousand absurd ones is more than SQLite holds."""
    for index in range(6):
        write(history, window(index, prompt_tokens=2**64, output_tokens=7), now_us=end_of(index))
    assert {(r.prompt_tokens, r.output_tokens) for r in rows(path)} == {(2**63 - 1, 7)}
    (minute,) = rows(path, 60)
    assert (minute.prompt_tokens, minute.output_tokens) == (2**63 - 1, 42)


def test_a_damaged_row_is_laid_aside_with_its_file(path: Path) -> None:
    former = History(path, KEPT)
    write(former, window(0), now_us=end_of(0))
    former.close(5)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE windows SET levels_us = x'c1'")
    history = History(path, KEPT)
    write(history, window(0), now_us=end_of(0))
    history.close(5)
    assert path.with_suffix(".unreadable-1").exists()
    assert len(rows(path)) == 1


@pytest.mark.parametrize("away", ["file", "all files", "folder", "replaced"])
def test_a_file_taken_away_while_it_is_written_begins_anew(
    history: History, path: Path, away: str
) -> None:
    write(history, window(0), now_us=end_of(0))
    if away == "folder":
        path.parent.rename(path.parent.with_name("elsewhere"))
    elif away == "replaced":
        other = History(path.with_name("other.db"), KEPT)
        write(other, window(9), now_us=end_of(9))
        other.close(5)
        path.with_name("other.db").replace(path)
    else:
        for file in [path] if away == "file" else path.parent.glob("history.db*"):
            file.unlink()
    write(history, window(1), now_us=end_of(1))
    write(history, window(2), now_us=end_of(2))
    kept = [end_of(9)] if away == "replaced" else []
    assert [r.start_us + FINE_US for r in rows(path)] == [end_of(1), end_of(2), *kept]
    history.close(5)
    assert len(rows(path)) == 2 + len(kept)


def test_a_clock_that_ran_ahead_once_costs_no_minute_after_it(path: Path) -> None:
    ahead = 10 * 365 * 24 * 360
    former = History(path, KEPT)
    for index in range(ahead, ahead + 60):
        former.add([window(index)], end_of(index))
    former.close(5)
    assert len(rows(path, 60)) == 10
    history = History(path, KEPT)
    for index in range(60):
        history.add([window(index)], end_of(index))
    history.close(5)
    assert len([r for r in rows(path, 60) if r.start_us < end_of(60)]) == 10
    assert len([r for r in rows(path, 300) if r.start_us < end_of(60)]) == 2


def test_a_scaled_clock_begins_its_history_anew(path: Path) -> None:
    former = History(path, KEPT)
    write(former, window(100), now_us=end_of(100))
    former.close(5)
    fresh = History(path, KEPT, fresh=True)
    write(fresh, window(0), now_us=end_of(0))
    fresh.close(5)
    assert [r.start_us for r in rows(path)] == [START_US]


def test_the_newest_rows_are_the_last_ones_in_their_order(history: History, path: Path) -> None:
    for index in range(4):
        write(history, window(index), window(index, model="a"), now_us=end_of(index))
    found = read_rows(path, 10, newest=3)
    assert [(r.start_us, r.model) for r in found] == [
        (START_US + 2 * FINE_US, "m"),
        (START_US + 3 * FINE_US, "a"),
        (START_US + 3 * FINE_US, "m"),
    ]
    assert len(list(read_rows(path, 10, newest=100))) == 8
    assert [r.model for r in read_rows(path, 10, model="m", newest=1)] == ["m"]


def test_no_history_says_where_it_was_looked_for(path: Path) -> None:
    with pytest.raises(NoHistoryError, match="no history yet"):
        rows(path)
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as begun:  # as a gateway has it for a moment
        begun.execute("PRAGMA journal_mode=WAL")
        with pytest.raises(NoHistoryError, match="no history yet"):
            rows(path)
    path.unlink()
    path.write_bytes(b"junk" * 1000)
    with pytest.raises(NoHistoryError, match="cannot be read"):
        rows(path)


WRITER = """
import sys
from pathlib import Path
from tests.prewarm.test_history import KEPT, History, end_of, until, window
history = History(Path(sys.argv[1]), KEPT)
first = int(sys.argv[2])
for index in range(first, first + 100_000):
    history.add([window(index, model=f"m{i}") for i in range(40)], end_of(index))
    until(lambda: not history.state().pending)
    print(index, flush=True)
"""


@pytest.mark.integration
def test_killed_in_mid_write_it_has_all_that_it_said_it_wrote(path: Path) -> None:
    """Nine kills at moments of the machine's choosing, each followed by a restart."""
    written = -1
    for kill in range(9):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(written + 1)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(3 + 7 * kill):
            written = int(process.stdout.readline())
        process.kill()
        rest = process.communicate()[0].split()
        written = max([written, *(int(line) for line in rest)])
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = rows(path)
        whole = {(r.model, r.start_us) for r in found}
        for index in range(written + 1):
            for i in range(40):
                assert (f"m{i}", START_US + index * FINE_US) in whole
        assert len(found) % 40 == 0, "a batch is written whole or not at all"
        written = len(found) // 40 - 1  # the last one may have come without a word
        assert all(r.offered == 1 for r in found), "nothing is written twice"
