"""The written report: targets judged, losses named, tables that are whole."""

import dataclasses
import re

import pytest

from loadtests.forecasts.cases import CASES, Case
from loadtests.forecasts.costs import Costs
from loadtests.forecasts.report import Facts, markdown
from loadtests.forecasts.trails import Week
from loadtests.forecasts.verdicts import Outcome, judged
from prewarm.scores import StreamResult
from tests.loadtests.forecasts.scenes import result, score, stream, trial

NAMED = Case("Named", "named.csv", "60m", "8d", named=True)
HOUR = Case("Hour", "hour.jsonl", "10s,30s,1m,2m,4m", "20m")
GOOD = result(score(0.08, n=3000), last_value=0.2, mean_hour=0.1, day=0.3)
"""0.8 of the best simple baseline, 0.4 of last value; WAPE alike."""


def outcome(case: Case, *streams: StreamResult, worst: tuple[Week, ...] = ()) -> Outcome:
    one = trial(*streams)
    return Outcome(
        case=case, trial=one, table=one.table, worst_weeks=worst, plot="plots/x.png", took_s=3.0
    )


def facts(**changes: object) -> Facts:
    usual = {
        "cpu": "a processor",
        "cores": 2,
        "python": "3.11",
        "version": "0.1",
        "command": "make forecast-report",
        "quick": False,
        "overview": "",
        "missing": (),
        "failed": (),
    }
    return Facts(**{**usual, **changes})  # type: ignore[arg-type]


COSTS = Costs(
    one_update_ms=0.4,
    one_predict_ms=0.7,
    one_horizons=4,
    fleet_streams=500,
    fleet_bins=4032,
    fleet_fit_s=41.0,
    fleet_update_ms=9.0,
    fleet_predict_ms=90.0,
    fleet_rss_mb=512.0,
    fit_s={"prophet": 1.5},
    failed={"mstl": "not installed"},
)


def verdicts(case: Case, *streams: StreamResult) -> dict[str, bool]:
    return {one.what: one.met for one in judged(outcome(case, *streams))}


def test_every_target_of_a_named_trace_is_judged() -> None:
    assert verdicts(NAMED, stream("a", GOOD)) == {
        "pinball ÷ best simple ≤ 0.90": True,
        "pinball ÷ last value ≤ 1.02": True,
        "WAPE ÷ best simple ≤ 1": True,
        "q90 holds within ± 2 points": True,
        "q95 holds within ± 2 points": True,
    }
    close = result(score(0.095, n=3000), last_value=0.2, mean_hour=0.1)
    assert not verdicts(NAMED, stream("a", close))["pinball ÷ best simple ≤ 0.90"]


def test_a_short_trace_is_held_to_last_value_alone_and_few_bins_to_no_coverage() -> None:
    equal = result(score(0.2, n=240, coverage_q90=0.5), last_value=0.2, mean_hour=0.1)
    assert verdicts(HOUR, stream("a", equal)) == {"pinball ÷ last value ≤ 1": True}
    worse = result(score(0.201, n=240), last_value=0.2)
    assert verdicts(HOUR, stream("a", worse)) == {"pinball ÷ last value ≤ 1": False}


def test_what_could_not_be_found_is_not_met() -> None:
    alone = result(score(0.2, n=3000))
    assert not verdicts(NAMED, stream("a", alone))["pinball ÷ last value ≤ 1.02"]


def test_a_report_names_what_is_missed_and_lost() -> None:
    bad = result(
        score(0.4, n=3000, coverage_q90=0.87, coverage_q95=0.951), last_value=0.2, mean_hour=0.1
    )
    text = markdown(
        [outcome(NAMED, stream("busy", bad), worst=(Week("60m", "2024-05-06", 0.71),))],
        COSTS,
        facts(missing=("Hour",), failed=("Odd: no such column",)),
    )
    assert "| pinball ÷ best simple ≤ 0.90 | Named, 60m | **4.000** |" in text
    assert "| q90 holds within ± 2 points | Named, 60m | **87.0 %** |" in text
    assert "| q95 holds within ± 2 points | 1 | 1 |" in text
    assert "**Named**: 1 of 1 streams x horizons." in text
    assert "| busy | 60m | 0.4000 | `mean_hour` | 0.1000 | 4.000 | 2.000 |" in text
    assert "| Named | 60m | 2024-05-06 | 71.0 % |" in text
    assert "**Not at hand here**: Hour" in text
    assert "- Odd: no such column" in text
    assert "| refit of 500 models x 4032 bins, the default set | 41.0 s | 60 s |" in text
    assert "| fit of one model by `mstl` | not installed | – |" in text


def test_what_costs_too_much_is_a_target_missed() -> None:
    one = outcome(NAMED, stream("a", GOOD))
    text = markdown([one], dataclasses.replace(COSTS, fleet_fit_s=81.4), facts())
    assert "| refit on one core ≤ 60 s | 500 models x 4032 bins | **81.4** |" in text
    assert "| update of one model ≤ 1 ms | 1 | 1 | 4 horizons: 0.4 |" in text


def test_few_bins_come_with_an_interval() -> None:
    few = result(score(0.2, n=240, coverage_q90=0.9), last_value=0.2)
    text = markdown([outcome(HOUR, stream("a", few))], None, facts())
    assert "90.0 % (85.6 % to 93.2 %)" in text  # worked out in test_forecast_findings


def test_the_price_table_holds_ours_beside_last_value_at_three_prices() -> None:
    text = markdown([outcome(NAMED, stream("a", GOOD))], None, facts())
    # A scene prices a loss p at 5 p, 10 p and 20 p; the hour's mean is the cheapest beside ours.
    priced = " | ".join(f"{cost} | 0.400 | `mean_hour`" for cost in ("0.400", "0.800", "1.600"))
    assert f"| Named | 60m | {priced} |" in text


def test_every_row_is_as_wide_as_its_head() -> None:
    outcomes = [outcome(NAMED, stream("a", GOOD)), outcome(HOUR, stream("b", GOOD))]
    text = markdown(outcomes, COSTS, facts(quick=True))
    assert "Do not quote it" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {line.count("|") for line in block.splitlines()}
        assert len(widths) == 1, block


def test_every_trace_has_a_file_name_of_its_own() -> None:
    assert len({case.slug for case in CASES}) == len(CASES)
    assert sum(case.named for case in CASES) == 4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.slug)
def test_a_case_can_be_asked_for(case: Case) -> None:
    from loadtests.spans import span_us

    assert case.short == (span_us(case.score_from, "--score-from") < span_us("1h", ""))
