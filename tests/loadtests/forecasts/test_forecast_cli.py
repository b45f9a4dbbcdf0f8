"""`warmtide forecast backtest` as a user meets it: documents, tables, files, bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.loadtests.absent import without_matplotlib
from tests.loadtests.forecasts.asking import counts, forecast, told
from tests.loadtests.pages import Parsed

SCORES = {
    *("n", "wape", "mape", "pinball_q50", "pinball_q90", "pinball_q95"),
    *("coverage_q90", "coverage_q95"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "counts.csv"
    path.write_text(counts())
    return path


def backtest(*arguments: object) -> Result:
    return forecast("backtest", *arguments)


def document(*arguments: object) -> dict[str, Any]:
    return told("backtest", *arguments)


def test_the_document_is_as_promised(file: Path) -> None:
    found = document(file, "--horizons", "60m,4h,30m")
    assert [one["stream"] for one in found["streams"]] == ["s0", "s1"]
    for stream in found["streams"]:
        assert [one["horizon"] for one in stream["horizons"]] == ["30m", "60m", "4h"]
        for one in stream["horizons"]:
            assert set(one) >= {"method_share", "baselines", *SCORES}
            assert sum(one["method_share"].values()) == pytest.approx(1.0)
            assert set(one["baselines"]["last_value"]) >= SCORES
            assert one["n"] == 2 * 48  # two of ten days, from the eighth on
        assert stream["fit_s"] >= 0
        assert stream["update_ms"] > 0
    assert (found["bin_s"], found["first_scored"], found["demand"]) == (1800, 8 * 48, "recorded")
    assert [one["horizon"] for one in found["aggregate"]] == ["30m", "60m", "4h"]


def test_a_baseline_is_scored_as_worked_out_by_hand(tmp_path: Path) -> None:
    """A saw of 10 and 20: last value is off by 10 one bin ahead, and by nothing two bins ahead."""
    file = tmp_path / "saw.csv"
    rows = (f"{1800 * t},{10 + 10 * (t % 2)}" for t in range(480))
    file.write_text("\n".join(["t_s,saw", *rows]))
    found = document(file, "--horizons", "30m,60m")
    near, far = (one["baselines"]["last_value"] for one in found["streams"][0]["horizons"])
    # |error| 10 of a mean of 15; its residuals are +10 and -10 half of the time, so that the
    # median adds about nothing and the q90 adds 10.
    assert near["wape"] == pytest.approx(10 / 15, abs=0.01)
    assert far["wape"] == 0
    assert far["pinball_q90"] == 0


def test_the_same_seed_gives_the_same_scores(file: Path) -> None:
    def scored(seed: int) -> list[Any]:
        return [one["horizons"] for one in document(file, "--seed", seed)["streams"]]

    assert scored(3) == scored(3)


def test_people_get_a_table_for_each_horizon_and_what_is_lost(file: Path) -> None:
    done = backtest(file, "--horizons", "60m,4h")
    assert done.exit_code == 0
    for words in ("counts.csv · recorded · 60m ahead · 2 streams", "4h ahead", "last_value"):
        assert words in done.stdout
    assert "x last value; had the right to act in" in done.stdout


def test_streams_are_chosen_by_name_or_weight(file: Path) -> None:
    assert [s["stream"] for s in document(file, "--streams", "s0")["streams"]] == ["s0"]
    assert [s["stream"] for s in document(file, "--busiest", 1)["streams"]] == ["s1"]


def test_requests_are_binned_as_asked(tmp_path: Path) -> None:
    """An hour of requests, one in 2 s: five in each bin of 10 s, thirty in each minute."""
    file = tmp_path / "requests.csv"
    rows = (
        f"2023-11-16 18:{s // 60:02}:{s % 60:02}.0000000,{100 + s % 7},20"
        for s in range(0, 3600, 2)
    )
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    found = document(file, "--streams", "requests", "--score-from", "20m")
    assert found["bin_s"] == 10
    assert [one["horizon"] for one in found["aggregate"]] == ["10s", "30s", "1m", "2m", "4m"]
    minutes = document(file, "--streams", "requests", "--bin", "1m", "--horizons", "2m")
    assert minutes["bin_s"] == 60
    assert minutes["streams"][0]["horizons"][0]["wape"] < 0.01


def test_our_own_demand_is_named_as_such() -> None:
    found = document("generated", "--busiest", 2, "--horizons", "60m")
    assert (found["demand"], found["trace"]) == ("generated", "generated (0)")


# --- files


def test_a_report_and_a_picture_are_left_where_they_were_asked_for(
    file: Path, tmp_path: Path
) -> None:
    html, png = tmp_path / "report.html", tmp_path / "s1.png"
    done = backtest(file, "--horizons", "60m,4h", "--html", html, "--png", png)
    assert done.exit_code == 0, done.stderr
    assert f"wrote {html}" in done.stderr
    assert png.read_bytes().startswith(b"\x89PNG")
    page = Parsed(html.read_text())
    page.check_whole()
    for words in ("60m ahead: 2 streams", "4h ahead", "recorded", "last_value", "right to act"):
        assert words in page.text
    assert page.tags.count("svg") == 2  # a drawing for each of the two streams
    for label in ("asked", "median", "above q90", "above q95", "who", "acts"):
        assert f">{label}<" in page.text, label


def test_without_the_plot_library_the_extra_is_named_before_anything_runs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_matplotlib(monkeypatch)
    done = backtest(file, "--png", file.with_suffix(".png"))
    assert done.exit_code == 2
    assert "install the extra `reports`" in done.stderr


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a file of counts, or 'generated', or give --from-history"),
        (("/none.csv",), "/none.csv: there is no such file"),
        (("FILE", "--from-history"), "name a file of counts"),
        (("FILE", "--horizons", "45m"), "the bins are 30m wide"),
        (("FILE", "--horizons", "later"), "--horizons: 'later' is no time span"),
        (("FILE", "--streams", "s7"), "no stream 's7': "),
        (("FILE", "--zone", "Mars/Olympus"), "zone 'Mars/Olympus': is not known"),
        (("FILE", "--bin", "7m"), "multiple"),
        (("FILE", "--with", "profet"), "no forecaster 'profet'"),
        (("FILE", "--html", "/nowhere/r.html"), "there is no such folder"),
        (("FILE", "--html", "/"), "/: is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_had_is_answered_in_words(
    file: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = backtest(*(str(file) if one == "FILE" else one for one in arguments), "--json")
    assert done.exit_code == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert said in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(["0,5"], id="one lone point"),
        pytest.param([f"{600 * t}," for t in range(2000)], id="all holes"),
        pytest.param([f"{600 * t},0" for t in range(2000)], id="zeros"),
        pytest.param([f"{600 * t},7" for t in range(2000)], id="constant"),
        pytest.param(
            [
                f"{600 * t},{'NaN' if t % 9 == 0 else -3 if t % 11 == 0 else t % 40}"
                for t in range(2000)
            ]
            + ["600000,5", "zzz,4"],
            id="nonsense cells, a row twice, a row that is none",
        ),
    ],
)
def test_dirty_demand_has_a_defined_result_and_a_reason(tmp_path: Path, rows: list[str]) -> None:
    file = tmp_path / "dirty.csv"
    file.write_text("\n".join(["t_s,a", *rows]))
    found = document(file)
    [stream] = found["streams"]
    assert stream["horizons"]
    flat_and_whole = {"0", "7"} >= {row.partition(",")[2] for row in rows}
    assert flat_and_whole or stream["notes"] or found["notes"]
    assert backtest(file).exit_code == 0


def test_data_that_end_before_the_scoring_begins_are_answered_with_the_reason(
    tmp_path: Path,
) -> None:
    file = tmp_path / "short.csv"
    file.write_text("t_s,a\n0,5\n600,7\n1200,6\n")
    found = document(file, "--score-from", "8d")
    [stream] = found["streams"]
    assert stream["horizons"][0]["n"] == 0
    assert "nothing is left to score from 8d on, for the data ends after 30m" in stream["notes"]
