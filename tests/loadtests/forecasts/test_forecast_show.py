"""`warmtide forecast show`: the next day of a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from loadtests.forecasts.outlook import Said, horizons_of_a_day, local_words, rows_of
from loadtests.forecasts.showing import why_not
from prewarm.calendars import US, Calendar
from prewarm.forecast import LEVELS
from prewarm.selection.selector import Standing
from tests.loadtests.absent import without_matplotlib
from tests.loadtests.forecasts.asking import counts, forecast, told
from tests.loadtests.pages import Parsed

HOUR_US = 3_600 * US
# 2024-03-30 20:00 UTC: the night in which Berlin's clocks jump from 2 to 3 o'clock.
BEFORE_SUMMER_US = 1_711_828_800 * US


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "counts.csv"
    path.write_text(counts(days=9, streams=2, width_s=3600))
    return path


def show(*arguments: object) -> Result:
    return forecast("show", *arguments)


def document(*arguments: object) -> dict[str, Any]:
    return told("show", *arguments)


def test_the_next_day_has_a_row_an_hour_in_order(file: Path) -> None:
    found = document("s1", "--file", file)
    rows = found["rows"]
    assert [row["ahead_s"] for row in rows] == [3600 * hour for hour in range(1, 25)]
    assert all(0 <= row["q50"] <= row["q90"] <= row["q95"] for row in rows)
    # Bin 0 is midnight and nine days are over: the newest bin began at 23, the next begins at 0.
    assert [row["local"][-5:] for row in rows] == [f"{hour:02}:00" for hour in range(24)]
    assert all(row["acts"] or row["why"] for row in rows)
    # At 23 o'clock 35 x (1.2 - 0.2588) = 33, and 215 x 8 leaves no rest by 5.
    assert (found["model"], found["target"], found["newest"]) == ("s1", "requests", 33)


@pytest.mark.parametrize("name", ["[/x]", "$\\frac{$", "<b>ü</b>"])
def test_a_stream_is_shown_by_its_name_whatever_that_is(tmp_path: Path, name: str) -> None:
    """Brackets are no markup, dollars no formula, and tags no page of ours."""
    file, html = tmp_path / "counts.csv", tmp_path / "day.html"
    file.write_text(counts(days=3, streams=1, width_s=3600).replace("s0", name), "utf-8")
    done = show(name, "--file", file, "--html", html)
    assert done.exit_code == 0, done.output
    assert f"{name} · requests" in done.stdout
    assert "<b>ü" not in html.read_text("utf-8")


def test_bins_wider_than_a_day_have_one_row_and_a_day_of_milliseconds_is_refused(
    tmp_path: Path,
) -> None:
    weeks, moments = tmp_path / "weeks.csv", tmp_path / "moments.csv"
    weeks.write_text("\n".join(["t_s,a", *(f"{at * 604_800},{at}" for at in range(20))]))
    moments.write_text("\n".join(["t_s,a", *(f"{at / 1000},{at % 5}" for at in range(2000))]))
    (row,) = document("a", "--file", weeks)["rows"]
    assert row["ahead_s"] == 604_800
    done = show("a", "--file", moments)
    assert done.exit_code == 2
    assert "bins of 1 ms are too narrow to forecast a day in" in " ".join(done.stderr.split())


def test_the_zone_is_that_of_the_people(file: Path) -> None:
    rows = document("s0", "--file", file, "--zone", "Asia/Tokyo")["rows"]
    assert rows[0]["local"].endswith("09:00")


def test_people_get_a_table_and_files(file: Path, tmp_path: Path) -> None:
    png, html = tmp_path / "day.png", tmp_path / "day.html"
    done = show("s0", "--file", file, "--png", png, "--html", html)
    assert done.exit_code == 0, done.stderr
    assert "s0 · requests in a bin of 3600 s · recorded · UTC" in done.stdout
    assert "may act" in done.stdout
    assert png.read_bytes().startswith(b"\x89PNG")
    page = Parsed(html.read_text())
    page.check_whole()
    assert page.tags.count("svg") == 1
    assert page.tags.count("tr") == 1 + 24


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s7", "--file", "FILE"), "no model 's7': there are s0, s1"),
        (("s0", "--file", "/none.csv"), "there is no such file"),
        (("s0", "--file", "FILE", "--png", "/nowhere/x.png"), "there is no such folder"),
        (("a", "--file", "HOLES"), "nothing was observed of a"),
    ],
)
def test_what_cannot_be_shown_is_said(
    file: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    holes = tmp_path / "holes.csv"
    holes.write_text("t_s,a\n" + "".join(f"{600 * at},\n" for at in range(20)))
    names = {"FILE": str(file), "HOLES": str(holes)}
    done = show(*(names.get(one, one) for one in arguments))
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_a_lone_point_is_forecast_and_may_not_be_acted_on(tmp_path: Path) -> None:
    lone = tmp_path / "lone.csv"
    lone.write_text("t_s,a\n0,5\n")
    rows = document("a", "--file", lone)["rows"]
    assert len(rows) == 24
    assert not any(row["acts"] for row in rows)
    assert {row["why"] for row in rows} == {"tried for less than a day"}


def test_without_the_plot_library_the_extra_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_matplotlib(monkeypatch)
    done = show("s0", "--file", file, "--png", file.with_suffix(".png"))
    assert done.exit_code == 2
    assert "install the extra `reports`" in done.stderr


@pytest.mark.parametrize(
    ("width_s", "horizons"),
    [
        (300, tuple(range(12, 289, 12))),
        (3600, tuple(range(1, 25))),
        (4 * 3600, (1, 2, 3, 4, 5, 6)),
        (86_400, (1,)),
    ],
)
def test_rows_are_full_hours_or_whole_bins(width_s: int, horizons: tuple[int, ...]) -> None:
    assert horizons_of_a_day(width_s * US) == horizons


def test_local_time_jumps_with_the_clocks() -> None:
    calendar = Calendar(BEFORE_SUMMER_US, HOUR_US, "Europe/Berlin")
    found = [local_words(calendar, at) for at in (3, 4, 5)]
    assert found == ["Sun 2024-03-31 00:00", "Sun 2024-03-31 01:00", "Sun 2024-03-31 03:00"]


def test_a_row_reads_its_quantiles_and_names_nobody_where_nothing_is_said() -> None:
    calendar = Calendar(0, HOUR_US)
    said = [
        Said(bins=2, method="day", share=0.6, acts=True, why=""),
        Said(bins=4, method="day", share=0.6, acts=False, why="because"),
    ]
    known = np.array([100 * level for level in LEVELS])
    quantiles = np.stack([known, np.full(len(LEVELS), np.nan)])
    first, second = rows_of(calendar, 10, said, quantiles)
    assert (first.q50, first.q90, first.q95) == (50.0, 90.0, 95.0)
    assert (first.start_s, first.local, first.method) == (43_200.0, "Thu 1970-01-01 12:00", "day")
    assert (second.method, second.why) == ("", "because")


def test_why_not_names_the_price_at_which_it_would_have_been_dearest() -> None:
    def standing(*cost: float) -> Standing:
        one = np.ones((1, 1))
        return Standing(one, one, np.array([[cost]]), one.astype(np.bool_))

    assert why_not(standing(0.9, 1.02, 1.07), 0, 9.0) == "1.07 x last value, r = 36"
    assert why_not(standing(1.2, 0.9, 0.8), 0, 9.0) == "1.20 x last value, r = 2.25"
    assert why_not(standing(0.0, 0.0, 0.0), 0, 9.0) == "tried for less than a day"
