"""The history of a real gateway: whole after kill -9, and no request's trouble when disks are."""

import resource
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from placement.catalog import HistoryKept
from placement.clock import wall_us
from placement.engines.base import end_now
from prewarm.history import History, NoHistoryError, read_rows
from prewarm.windows import FINE_US, Window
from tests.integration.running import (
    WARMTIDE,
    Gateway,
    catalog_text,
    emulated,
    running,
    until,
    warmtide,
)

pytestmark = pytest.mark.integration

SCALE = 20.0
MODELS = [emulated("busy", min_replicas=1), emulated("quiet")]


class Traffic:
    """Clients that ask one after the other until told to stop; what became of each, counted."""

    def __init__(self, gateway: Gateway) -> None:
        self.ended: Counter[int] = Counter()
        self._stop = threading.Event()
        self._url = f"{gateway.base_url}/chat/completions"
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        message = {"role": "user", "content": "tides"}
        body = {"model": "busy", "max_tokens": 8, "messages": [message]}
        with httpx.Client(timeout=60, trust_env=False) as client:
            for _ in range(2000):
                if self._stop.is_set():
                    return
                try:
                    status = client.post(self._url, json=body).status_code
                except httpx.HTTPError:
                    status = 0
                self.ended[status] += 1
                time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)


@contextmanager
def traffic(gateway: Gateway) -> Iterator[Traffic]:
    made = Traffic(gateway)
    try:
        yield made
    finally:
        made.stop()


def offered(path: Path, model: str = "busy") -> int:
    """Requests in the history; none where it is not there yet."""
    try:
        return sum(row.offered for row in read_rows(path, 10, model=model))
    except NoHistoryError:
        return 0


def test_killed_under_load_the_history_is_whole_up_to_the_open_window(tmp_path: Path) -> None:
    with running(tmp_path, catalog_text(MODELS), time_scale=SCALE) as gateway:
        path = gateway.state_dir / "history-scaled.db"
        with traffic(gateway) as asked:
            until(lambda: offered(path) > 150, "some windows are written")
            assert gateway.identity is not None
            end_now(gateway.identity)
            gateway.process.wait(30)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for model in ("busy", "quiet"):
            rows = list(read_rows(path, 10, model=model))
            starts = [row.start_us for row in rows]
            assert starts == list(range(starts[0], starts[-1] + 1, FINE_US)), "no window is missing"
            assert all(row.covered_s == 10.0 for row in rows[1:])
        answered, written = asked.ended[200], offered(path)
        assert 150 < written <= answered + 3
        minutes = {row.start_us: row.offered for row in read_rows(path, 60, model="busy")}
        fine = Counter[int]()
        for row in read_rows(path, 10, model="busy"):
            fine[row.start_us // (6 * FINE_US) * 6 * FINE_US] += row.offered
        assert minutes
        assert all(fine[start_us] == count for start_us, count in minutes.items())


def test_a_restart_goes_on_with_the_history_that_was_there(tmp_path: Path) -> None:
    text = catalog_text(MODELS)
    ask = {"model": "busy", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    sent = 0
    for _ in range(2):
        with running(tmp_path, text) as gateway:
            for _ in range(3):
                url = f"{gateway.base_url}/chat/completions"
                assert httpx.post(url, json=ask, timeout=120).status_code == 200
                sent += 1
    path = tmp_path / "state" / "history.db"
    assert offered(path) == sent
    shown = warmtide(
        "history", "show", "busy", "--width", "10s", "--json", "--state-dir", path.parent
    )
    assert sum(row["offered"] for row in shown.document["rows"]) == sent
    exported = warmtide("history", "export", "--width", "10s", "--state-dir", path.parent)
    assert exported.out.splitlines()[0] == "t_s,busy,quiet"


def keep(path: Path, *starts_us: int) -> None:
    """A history with a window for each of these."""
    history = History(path, HistoryKept())
    windows = [Window(model="m", start_us=s, width_s=10, levels_us={1: FINE_US}) for s in starts_us]
    history.add(windows, min(starts_us))
    history.close(5)


def test_a_clock_that_ran_ahead_once_does_not_hide_today(tmp_path: Path) -> None:
    today = wall_us() // FINE_US * FINE_US - FINE_US
    keep(tmp_path / "history.db", today, today + 10 * 365 * 86_400 * 1_000_000)
    shown = warmtide("history", "show", "--width", "10s", "--json", "--state-dir", tmp_path)
    assert [row["start_us"] for row in shown.document["rows"]] == [today]


def test_an_export_overwrites_nothing_in_the_state_directory(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    keep(path, wall_us() // FINE_US * FINE_US - FINE_US)
    link = tmp_path.with_name("link.csv")
    link.symlink_to(path)
    for out in (path, link, tmp_path / "admin.token"):
        export = warmtide("history", "export", "--out", out, "--state-dir", tmp_path)
        assert export.code == 2
        assert "--out" in export.err
    assert len(list(read_rows(path, 10))) == 1
    assert not (tmp_path / "admin.token").exists()


def test_an_export_that_nobody_reads_to_its_end_blames_no_option(tmp_path: Path) -> None:
    keep(tmp_path / "history.db", *range(0, 30_000 * FINE_US, FINE_US))
    command = [*WARMTIDE, "history", "export", "--width", "10s", "--last", "30000 d"]
    with subprocess.Popen(
        [*command, "--state-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        assert export.stdout.readline() == b"t_s,m\r\n"
        export.stdout.close()
        assert b"--out" not in export.stderr.read()


def assert_every_request_is_written(gateway: Gateway, asked: Traffic, path: Path) -> None:
    """Once the window is over in which the last of them came."""
    end_of_traffic = gateway.status()["now_us"]
    until(lambda: gateway.status()["history"]["upto_us"] >= end_of_traffic, "the rest is written")
    assert set(asked.ended) == {200}
    assert offered(path) == asked.ended[200]


def test_a_locked_history_is_shown_and_costs_no_request(tmp_path: Path) -> None:
    with running(tmp_path, catalog_text(MODELS), time_scale=SCALE) as gateway:
        path = gateway.state_dir / "history-scaled.db"
        with traffic(gateway) as asked:
            until(lambda: offered(path), "the first window is written")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                until(lambda: "locked" in gateway.status()["history"]["problem"], "it is told")
                other.execute("ROLLBACK")
            until(lambda: not gateway.status()["history"]["problem"], "it is written again")
        assert_every_request_is_written(gateway, asked, path)


def test_a_full_disk_is_shown_and_costs_no_request(tmp_path: Path) -> None:
    with running(tmp_path, catalog_text(MODELS), time_scale=SCALE) as gateway:
        path = gateway.state_dir / "history-scaled.db"
        process = psutil.Process(gateway.card["pid"])
        with traffic(gateway) as asked:
            until(lambda: offered(path), "the first window is written")
            process.rlimit(resource.RLIMIT_FSIZE, (1, -1))
            until(lambda: gateway.status()["history"]["problem"], "it is told")
            assert gateway.status()["history"]["pending"] > 0
            process.rlimit(resource.RLIMIT_FSIZE, (-1, -1))
            until(lambda: not gateway.status()["history"]["problem"], "it is written again")
        assert_every_request_is_written(gateway, asked, path)
