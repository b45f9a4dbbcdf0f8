"""What a back-test comes to, worked out by hand; and its JSON."""

import json
from math import inf, isnan, nan

import msgspec
import pytest

from loadtests.forecasts.document import document, without_nan
from loadtests.forecasts.findings import fields, interval, losses, mean_shares, ratio
from tests.loadtests.forecasts.scenes import SIMPLE, found, result, score, stream, trial

# Two streams at one horizon. Means: ours (0.1 + 0.3) / 2 = 0.2, last value (0.2 + 0.3) / 2 = 0.25,
# the hour's mean (0.12 + 0.38) / 2 = 0.25 too, yesterday (0.4 + 0.2) / 2 = 0.3.
BUSY = stream("busy", result(0.1, last_value=0.2, mean_hour=0.12, day=0.4, ewma=0.05))
ODD = stream("odd", result(0.3, last_value=0.3, mean_hour=0.38, day=0.2, ewma=0.05))
SILENT = stream("silent", result(9.0, last_value=1.0, mean_hour=1.0, day=1.0), scored=99.0)


def test_losses_are_means_over_the_streams_that_were_asked_enough() -> None:
    [field] = fields(found(BUSY, ODD, SILENT), ["60m"], SIMPLE)
    assert field.ours.streams == 2
    assert field.ours.score.pinball == pytest.approx(0.2)
    assert field.ours.score.n == 2000
    # Of two alike the plainer is the bar; what is not simple is none, however good.
    assert field.best_simple == "last_value"
    assert field.against("last_value") == pytest.approx(0.8)
    assert field.against("ewma") == pytest.approx(4.0)
    assert isnan(field.against("prophet"))


def test_a_baseline_that_was_silent_for_long_is_no_bar() -> None:
    short = score(0.01, n=500)
    [field] = fields(found(stream("a", result(0.2, last_value=0.3, day=short))), ["60m"], SIMPLE)
    assert (field.best_simple, field.others["day"].score.n) == ("last_value", 500)


def test_lost_streams_are_those_behind_the_one_best_baseline_worst_first() -> None:
    worse = stream("worse", result(0.6, last_value=0.2, mean_hour=0.9, day=0.9))
    backtest = found(BUSY, worse, stream("close", result(0.21, last_value=0.2, day=0.9)))
    table = fields(backtest, ["60m"], SIMPLE)
    lost = losses(backtest, table)
    assert table[0].best_simple == "last_value"
    assert [(one.stream, round(one.ratio, 6)) for one in lost] == [("worse", 3.0), ("close", 1.05)]
    assert lost[0].against_last == pytest.approx(3.0)


def test_ratios_have_an_answer_where_nothing_was_lost_or_known() -> None:
    assert (ratio(0.0, 0.0), ratio(0.1, 0.0), ratio(0.1, 0.2)) == (1.0, inf, 0.5)
    assert isnan(ratio(0.1, nan))
    assert isnan(ratio(nan, 0.1))


def test_shares_weigh_streams_alike_the_largest_first() -> None:
    shares = mean_shares([{"a": 1.0}, {"a": 0.2, "b": 0.8}, {"b": 1.0}])
    assert list(shares) == ["b", "a"]
    assert shares["b"] == pytest.approx(0.6)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert mean_shares([]) == {}


def test_the_interval_of_a_coverage_is_wilsons() -> None:
    # 216 of 240 held: the middle is (0.9 + 3.8416 / 480) / (1 + 3.8416 / 240) = 0.893699,
    # the half width 1.96 sqrt(0.09 / 240 + 3.8416 / 230400) / 1.016007 = 0.038183.
    low, high = interval(0.9, 240)
    assert low == pytest.approx(0.855516, abs=1e-5)
    assert high == pytest.approx(0.931882, abs=1e-5)
    assert all(isnan(end) for end in interval(nan, 0))
    assert interval(1.0, 5)[1] == 1.0


def test_the_document_has_the_keys_that_programs_read() -> None:
    told = document(trial(BUSY, ODD))
    streams = told["streams"]
    assert [one["stream"] for one in streams] == ["busy", "odd"]
    assert set(streams[0]) >= {"stream", "horizons", "fit_s", "update_ms"}
    horizon = streams[0]["horizons"][0]
    scores = {
        *("n", "wape", "mape", "pinball_q50", "pinball_q90", "pinball_q95"),
        *("coverage_q90", "coverage_q95"),
    }
    assert set(horizon) >= {"horizon", "method_share", "baselines", *scores}
    assert horizon["horizon"] == "60m"
    assert set(horizon["baselines"]) == set(SIMPLE)
    assert set(horizon["baselines"]["last_value"]) >= scores
    assert set(horizon["forecasters"]) == {"ewma"}  # beside: what is no simple baseline
    assert streams[0]["update_ms"] == 0.25  # half of the 0.5 ms that both streams took
    assert told["aggregate"][0]["best_simple"] == "last_value"


def test_what_is_not_known_is_null_and_never_nan() -> None:
    nothing = score(nan, n=0, coverage_q90=nan, coverage_q95=nan, worst_week_q90=nan)
    told = document(trial(stream("a", result(nothing, last_value=nothing), scored=0.0)))
    text = msgspec.json.encode(told).decode()
    json.loads(text, parse_constant=pytest.fail)
    horizon = told["streams"][0]["horizons"][0]
    assert (horizon["n"], horizon["pinball_q90"], horizon["wape"]) == (0, None, None)
    assert told["not_averaged"] == ["a"]
    assert any("nothing could be scored" in note for note in told["notes"])
    assert without_nan({"a": [nan, inf, 1.0, (nan,)]}) == {"a": [None, None, 1.0, [None]]}
