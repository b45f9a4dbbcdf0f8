"""Announced events lift their bins and no others, and past occasions correct the next one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import DemandEvent
from prewarm.calendars import US, Calendar
from prewarm.events import FACTOR_MAX, Uplift, covered

WIDTH_US = 300 * US
CALENDAR = Calendar(start_us=0, width_us=WIDTH_US)
MODELS = ("a", "b")


def event(name: str, first: float, last: float, *models: str, uplift: float = 3.0) -> DemandEvent:
    """From so many bins after the start to so many."""
    return DemandEvent(
        name=name,
        models=models,
        start_us=int(first * WIDTH_US),
        end_us=int(last * WIDTH_US),
        uplift=uplift,
    )


def launch(first: float, last: float, per_s: float, *models: str) -> DemandEvent:
    return DemandEvent(
        name="launch",
        models=models,
        start_us=int(first * WIDTH_US),
        end_us=int(last * WIDTH_US),
        expected_per_s=per_s,
    )


def lived_through(uplift: Uplift, bins: range, values: list[float], usual: list[float]) -> None:
    for index in bins:
        uplift.observe(index, np.array(values), np.array(usual))


# Factors


def test_an_event_lifts_its_bins_of_its_models_and_nothing_else() -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("sale", 10, 12, "a")])
    assert [list(uplift.factors(b)) for b in (9, 10, 11, 12)] == [[1, 1], [3, 1], [3, 1], [1, 1]]


def test_an_event_without_models_lifts_all() -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("sale", 10, 12)])
    assert list(uplift.factors(11)) == [3, 3]


def test_a_bin_that_an_event_takes_in_part_is_lifted_in_part() -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("sale", 10.5, 12.25)])
    # Half of the bin at three times the usual: 1 + 2 * 0.5; a quarter: 1 + 2 * 0.25.
    assert [uplift.factors(b)[0] for b in (10, 11, 12)] == [2.0, 3.0, 1.5]


def test_an_event_within_one_bin_counts_by_its_length() -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("blink", 10.25, 10.5, uplift=5.0)])
    assert [uplift.factors(b)[0] for b in (9, 10, 11)] == [1.0, 2.0, 1.0]


def test_events_that_overlap_multiply_up_to_a_cap() -> None:
    both = [event("sale", 10, 12, uplift=4.0), event("news", 11, 13, uplift=5.0)]
    uplift = Uplift(CALENDAR, MODELS, both)
    assert [uplift.factors(b)[0] for b in (10, 11, 12)] == [4.0, 20.0, 5.0]
    many = [event(f"e{i}", 10, 12, uplift=10.0) for i in range(5)]
    assert Uplift(CALENDAR, MODELS, many).factors(10)[0] == FACTOR_MAX


def test_nobody_can_change_what_is_handed_out() -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("sale", 10, 12)])
    for index in (9, 10):
        with pytest.raises(ValueError, match="read-only"):
            uplift.factors(index)[0] = 7.0


spans = st.tuples(st.floats(0, 60), st.floats(0.01, 30), st.floats(0.02, 50)).map(
    lambda s: (s[0], s[0] + s[1], s[2])
)


@given(st.lists(spans, max_size=6), st.integers(-5, 100))
def test_the_factor_is_the_capped_product_of_what_each_event_says_alone(
    given_spans: list[tuple[float, float, float]], index: int
) -> None:
    events = [event(f"e{i}", a, b, uplift=u) for i, (a, b, u) in enumerate(given_spans)]
    shares = [covered(CALENDAR, e, np.array([index]))[0] for e in events]
    product = np.prod([1 + (e.uplift - 1) * s for e, s in zip(events, shares, strict=True)])
    expected = np.clip(product, 1 / FACTOR_MAX, FACTOR_MAX)
    assert Uplift(CALENDAR, MODELS, events).factors(index)[0] == pytest.approx(expected)


@given(spans)
def test_the_bins_of_an_event_add_up_to_its_length(span: tuple[float, float, float]) -> None:
    one = event("sale", span[0], span[1])
    whole = covered(CALENDAR, one, np.arange(100)).sum() * WIDTH_US
    assert whole == pytest.approx(one.end_us - one.start_us)


# Launches


def test_a_launch_says_how_many_requests_its_bins_get() -> None:
    uplift = Uplift(CALENDAR, MODELS, [launch(10, 11.5, 2.0, "b")])
    found = [uplift.launches(b) for b in (9, 10, 11)]
    # Two a second for 300 s, then for 150 s.
    assert [f[1] for f in found[1:]] == [600.0, 300.0]
    assert np.isnan(found[0]).all()
    assert all(np.isnan(f[0]) for f in found)
    assert list(uplift.factors(10)) == [1.0, 1.0]


def test_launches_that_overlap_add_up() -> None:
    uplift = Uplift(CALENDAR, MODELS, [launch(10, 12, 2.0), launch(10, 12, 1.0, "a")])
    assert list(uplift.launches(10)) == [900.0, 600.0]


# Learning


def test_an_occasion_that_was_half_of_what_was_announced_corrects_the_next() -> None:
    weekly = [event("batch", w, w + 10, "a", uplift=4.0) for w in (0, 100, 200)]
    uplift = Uplift(CALENDAR, MODELS, weekly)
    assert uplift.learnt("batch")[0] == 4.0
    lived_through(uplift, range(10), [200.0, 100.0], [100.0, 100.0])
    assert uplift.observed(weekly[0])[0] == 2.0
    once = uplift.factors(105)[0]
    assert 2.0 < once < 3.0, "one occasion is believed more than the announcement, and not wholly"
    lived_through(uplift, range(100, 110), [200.0, 100.0], [100.0, 100.0])
    twice = uplift.factors(205)[0]
    assert 2.0 < twice < once
    assert uplift.learnt("batch")[0] == twice


def test_a_correction_is_of_the_announcement_not_of_the_usual() -> None:
    small, large = event("sale", 0, 10, uplift=2.0), event("sale", 100, 110, uplift=8.0)
    uplift = Uplift(CALENDAR, MODELS, [small, large])
    lived_through(uplift, range(10), [200.0, 200.0], [100.0, 100.0])
    assert uplift.factors(105)[0] == pytest.approx(8.0, rel=0.01), "it held, so the next one will"


def test_few_requests_teach_little() -> None:
    weekly = [event("batch", w, w + 10, uplift=4.0) for w in (0, 100)]
    rare, busy = (Uplift(CALENDAR, MODELS, weekly) for _ in range(2))
    lived_through(rare, range(10), [0.02, 0.02], [0.01, 0.01])
    lived_through(busy, range(10), [200.0, 200.0], [100.0, 100.0])
    assert busy.factors(105)[0] < rare.factors(105)[0] < 4.0


def test_of_two_events_at_once_each_is_told_its_own_share() -> None:
    a, b = event("a", 0, 10, uplift=3.0), event("b", 0, 10, uplift=2.0)
    uplift = Uplift(CALENDAR, MODELS, [a, b])
    lived_through(uplift, range(10), [600.0, 600.0], [100.0, 100.0])
    assert uplift.observed(a)[0] == pytest.approx(3.0, rel=0.01)
    assert uplift.observed(b)[0] == pytest.approx(2.0, rel=0.01)


def test_holes_teach_nothing() -> None:
    weekly = [event("batch", w, w + 10, uplift=4.0) for w in (0, 100)]
    uplift = Uplift(CALENDAR, MODELS, weekly)
    lived_through(uplift, range(10), [np.nan, 400.0], [100.0, np.nan])
    assert list(uplift.factors(105)) == [4.0, 4.0]
    assert np.isnan(uplift.observed(weekly[0])).all()


def test_bins_outside_of_events_and_partly_inside_teach_nothing() -> None:
    weekly = [event("batch", w + 0.5, w + 9.5, uplift=4.0) for w in (0, 100)]
    uplift = Uplift(CALENDAR, MODELS, weekly)
    lived_through(uplift, range(1), [9.0, 9.0], [1.0, 1.0])
    lived_through(uplift, range(9, 90), [9.0, 9.0], [1.0, 1.0])
    assert uplift.factors(105)[0] == 4.0


def test_what_was_learnt_outlives_a_further_announcement() -> None:
    first, second = event("batch", 0, 10, uplift=4.0), event("batch", 100, 110, uplift=4.0)
    uplift = Uplift(CALENDAR, MODELS, [first])
    lived_through(uplift, range(10), [200.0, 200.0], [100.0, 100.0])
    assert uplift.announced([first, second]).factors(105)[0] < 3.0
    assert uplift.announced([second]).factors(105)[0] == 4.0, "a removed event is forgotten"


def test_an_unknown_name_has_taught_nothing() -> None:
    assert np.isnan(Uplift(CALENDAR, MODELS, []).learnt("x")).all()


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=20),
    st.floats(0.05, 20),
)
def test_whatever_is_seen_the_factor_stays_positive_and_within_its_cap(
    seen: list[tuple[float, float]], announced: float
) -> None:
    uplift = Uplift(CALENDAR, MODELS, [event("batch", 0, 1000, uplift=announced)])
    for index, (value, usual) in enumerate(seen):
        uplift.observe(index, np.array([value, np.nan]), np.array([usual, 1.0]))
    factors = uplift.factors(999)
    assert 1 / FACTOR_MAX <= factors[0] <= FACTOR_MAX
    assert factors[1] == pytest.approx(announced)
