"""Forecasts from the demand that a gateway recorded, or that was imported for it."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.history_cli import app as history
from placement.clock import wall_us
from prewarm.calendars import US
from tests.loadtests.forecasts.asking import forecast, told

WIDTH_S = 300
DAYS = 3
CATALOG = """
policy: {waiting_to_idle: 4}
forecast: {time_zone: Asia/Tokyo}
models:
  - {id: llama, engine: emulated, weights: 16 GB, waiting_to_idle: 19}
  - {id: qwen, engine: emulated, weights: 16 GB}
fleet:
  nodes:
    - {id: n0, gpu: H100-80GB, gpus: 2, host_memory: 256 GB}
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory of a gateway that has seen three days of two models, up to now."""
    folder = tmp_path / "state"
    file = tmp_path / "past.csv"
    end_s = wall_us() // US // (2 * WIDTH_S) * (2 * WIDTH_S)
    starts = range(end_s - DAYS * 86_400, end_s, WIDTH_S)
    rows = (f"{at},{20 + (at // WIDTH_S) % 5},{(at // WIDTH_S) % 2}" for at in starts)
    file.write_text("\n".join(["t_s,llama,qwen", *rows]))
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    folder.mkdir(mode=0o700)
    done = CliRunner().invoke(history, ["import", str(file), "--state-dir", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_a_back_test_reads_the_history(state: Path) -> None:
    asked = ("--from-history", "--state-dir", state, "--score-from", "2d", "--horizons", "10m,60m")
    found = told("backtest", *asked)
    assert (found["bin_s"], found["demand"], found["waiting_to_idle"]) == (300, "recorded", 9.0)
    assert [one["stream"] for one in found["streams"]] == ["llama", "qwen"]
    assert found["streams"][0]["horizons"][0]["n"] == 288
    wider = told("backtest", *asked, "--bin", "10m", "--streams", "llama")
    assert (wider["bin_s"], wider["streams"][0]["horizons"][0]["n"]) == (600, 144)


def test_rows_of_a_time_to_come_are_not_the_newest(state: Path) -> None:
    """A clock that ran ahead once left a window of the year 2100."""
    asked = ("--from-history", "--state-dir", state, "--score-from", "2d", "--horizons", "10m")
    before = told("backtest", *asked)
    with contextlib.closing(sqlite3.connect(state / "history.db")) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(windows)")]
        others = ", ".join(name for name in columns if name != "start_us")
        db.execute(
            f"INSERT INTO windows (start_us, {others}) SELECT 4102444800000000, {others} "
            "FROM windows WHERE width_s = 300 LIMIT 1"
        )
    assert told("backtest", *asked)["bins"] == before["bins"]


def test_the_catalog_says_zone_and_price(state: Path) -> None:
    catalog = state.parent / "catalog.yaml"
    known = ("--state-dir", state, "--catalog", catalog)
    asked = ("--score-from", "2d", "--horizons", "10m")
    found = told("backtest", "--from-history", *known, *asked)
    assert (found["zone"], found["waiting_to_idle"]) == ("Asia/Tokyo", 4.0)
    assert told("show", "llama", *known)["zone"] == "Asia/Tokyo"
    running = told("show", "llama", *known, "--target", "concurrency_mean")
    assert running["target"] == "concurrency_mean"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "lama"), 2, "no model 'lama': did you mean llama?"),
        (("show", "llama", "--target", "speed"), 2, "no target 'speed': there are requests,"),
        (("show", "llama", "--target", "concurrency_peak"), 2, "name it by --catalog"),
        (("backtest", "--from-history", "--bin", "7s"), 2, "--bin 7s: "),
    ],
)
def test_what_the_history_does_not_have_is_said(
    state: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = forecast(*arguments, "--state-dir", state)
    assert done.exit_code == code
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("command", [("show", "llama"), ("backtest", "--from-history")])
def test_events_that_cannot_be_read_are_not_passed_over(
    state: Path, command: tuple[str, ...]
) -> None:
    (state / "events.json").write_text("{broken")
    done = forecast(*command, "--state-dir", state)
    assert done.exit_code == 2
    assert "events.json: not a file of events" in " ".join(done.stderr.split())


def test_without_a_history_nothing_can_be_said(tmp_path: Path) -> None:
    done = forecast("show", "llama", "--state-dir", tmp_path)
    assert done.exit_code == 1
    assert "there is no history yet" in done.stderr
