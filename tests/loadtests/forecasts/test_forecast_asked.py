"""From words to bins: horizons, where scoring begins, which streams."""

import numpy as np
import pytest

from loadtests.errors import AskedError
from loadtests.forecasts.asked import (
    Horizon,
    chosen_streams,
    first_scored,
    horizons_of,
    names_of,
    why_unscored,
)
from loadtests.forecasts.running import refuse_what_no_memory_holds
from prewarm.calendars import US, Calendar
from prewarm.series import Panel

MINUTE_US = 60 * US


def panel(bins: int, width_us: int = 10 * MINUTE_US) -> Panel:
    """Streams a, b, c that ask 1, 3 and 2 in each bin."""
    values = np.tile(np.array([1.0, 3.0, 2.0]), (bins, 1))
    return Panel(calendar=Calendar(0, width_us), streams=("a", "b", "c"), values=values)


def test_horizons_of_more_bins_than_can_be_remembered_are_refused() -> None:
    """Ten minutes are 600 000 bins of a millisecond."""
    with pytest.raises(AskedError, match="too far for bins of 1 ms; 100000 bins at most"):
        horizons_of("10m", 1000)


def test_horizons_are_echoed_as_written_and_put_in_order() -> None:
    found = horizons_of("4h, 1.5h,60m", 10 * MINUTE_US)
    assert found == (Horizon("60m", 6), Horizon("1.5h", 9), Horizon("4h", 24))


@pytest.mark.parametrize(
    ("width_us", "words"),
    [
        (10 * US, ("10s", "30s", "1m", "2m", "4m")),
        (5 * MINUTE_US, ("10m", "20m", "60m", "4h")),
        (30 * MINUTE_US, ("60m", "4h")),  # 10 and 20 minutes are no whole bins here
        (1440 * MINUTE_US, ("86400s", "172800s", "518400s")),
    ],
)
def test_the_usual_horizons_are_those_that_fit(width_us: int, words: tuple[str, ...]) -> None:
    assert tuple(one.word for one in horizons_of("", width_us)) == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("45m", "--horizons 45m: the bins are 30m wide"),
        ("45m", "write a multiple, as 30m or 1h"),
        ("10s", "write a multiple, as 30m or 1h"),
        ("0s", "write a multiple"),
        ("60m,1h", "60m and 1h are the same"),
        ("8d", "too far; 7d at most"),
        ("soon", "'soon' is no time span"),
        (",", "name one at least"),
    ],
)
def test_a_horizon_that_is_no_bin_is_answered_with_those_that_are(text: str, said: str) -> None:
    with pytest.raises(AskedError, match=said.replace("(", r"\(")):
        horizons_of(text, 30 * MINUTE_US)


def test_scoring_begins_after_eight_days_or_a_third_of_less() -> None:
    assert first_scored("", panel(14 * 144)) == 8 * 144
    assert first_scored("", panel(9 * 144)) == 8 * 144
    assert first_scored("", panel(6 * 144)) == 2 * 144
    assert first_scored("", panel(1)) == 0
    assert first_scored("20m", panel(360, 10 * US)) == 120
    assert first_scored("15m", panel(144)) == 2  # the bin that is begun belongs to the past


def test_data_that_end_before_the_scoring_begins_say_so() -> None:
    assert first_scored("8d", panel(144)) == 144
    (said,) = why_unscored("8d", 144, panel(144))
    assert said == "nothing is left to score from 8d on, for the data ends after 1d"
    assert why_unscored("8d", 143, panel(144)) == ()


def test_streams_are_named_or_the_busiest_in_the_files_order() -> None:
    assert chosen_streams(panel(3), "", None).streams == ("a", "b", "c")
    busy = chosen_streams(panel(3), "", 2)
    assert (busy.streams, busy.values[0].tolist()) == (("b", "c"), [3.0, 2.0])
    named = chosen_streams(panel(3), "c, a,c", None)
    assert (named.streams, named.values[0].tolist()) == (("c", "a"), [2.0, 1.0])
    assert chosen_streams(panel(3), "", 9).streams == ("a", "b", "c")
    with pytest.raises(AskedError, match="no stream 'd': "):
        chosen_streams(panel(3), "d", None)
    with pytest.raises(AskedError, match="not both"):
        chosen_streams(panel(3), "a", 1)


def test_forecasters_are_named_once_and_known() -> None:
    known = ("prophet", "mstl")
    assert names_of("mstl,prophet, mstl", "--with", known) == ("mstl", "prophet")
    with pytest.raises(AskedError, match="--with: no forecaster 'profet': did you mean prophet"):
        names_of("profet", "--with", known)


def test_a_back_test_that_no_memory_holds_is_refused_with_what_to_do() -> None:
    refuse_what_no_memory_holds(bins=1152, streams=60, horizons=4)
    with pytest.raises(AskedError, match=r"500 streams x 4000 scored bins x 4 .* --busiest N"):
        refuse_what_no_memory_holds(bins=4000, streams=500, horizons=4)
