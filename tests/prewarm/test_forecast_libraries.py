"""Prophet and statsforecast, for real: what they learn, and what comes of series without sense."""

import logging

import numpy as np
import pytest

from placement.catalog import DemandEvent
from prewarm.calendars import Calendar
from prewarm.forecasters.libraries import HEAVY
from prewarm.forecasters.paths import FitRequest, Path
from prewarm.series import Floats

DAY = 48
"""Bins of half an hour."""
DAYS = 14
AHEAD = 2 * DAY
# Monday, 23 March 2026, midnight in Berlin. Good Friday is day 11 of it, Easter Monday day 14; the
# clock goes forward in the night to day 6.
MIDNIGHT_US = int(np.datetime64("2026-03-22T23:00", "us").astype(int))
BERLIN = Calendar(start_us=MIDNIGHT_US, width_us=1_800_000_000, zone="Europe/Berlin")
GOOD_FRIDAY, EASTER_MONDAY = (
    int(np.datetime64(day).astype(int)) for day in ("2026-04-03", "2026-04-06")
)


def usual() -> Floats:
    """Busy by day and quiet by night, by the clock on the wall; for the past and what is ahead."""
    seconds = np.array([BERLIN.local(b).second for b in range(DAYS * DAY + AHEAD)])
    rates: Floats = 300.0 - 200.0 * np.cos(2 * np.pi * seconds / 86_400)
    return rates


def fit(name: str, values: Floats, **more: object) -> Path:
    columns = values.reshape(len(values), -1)
    request = FitRequest(
        forecaster=name,
        calendar=BERLIN,
        streams=tuple(f"s{i}" for i in range(columns.shape[1])),
        first=0,
        values=columns,
        ahead=AHEAD,
        **more,  # type: ignore[arg-type]
    )
    return HEAVY[name](request)


def counted(rates: Floats, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).poisson(rates).astype(float)


def off(path: Path, truth: Floats) -> float:
    """The sum of the errors over what was asked."""
    return float(np.abs(path.medians[0] - truth).sum() / truth.sum())


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_a_library_learns_the_day(name: str) -> None:
    rates = usual()
    path = fit(name, counted(rates)[: DAYS * DAY])
    assert (path.forecaster, path.first, path.notes) == (name, DAYS * DAY, ("",))
    # The counts themselves are off by sqrt(2 / (pi 300)), a twentieth.
    assert off(path, rates[DAYS * DAY :]) < 0.06


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_holes_are_not_learnt_as_quiet_times(name: str) -> None:
    rates = usual()
    values = counted(rates)[: DAYS * DAY]
    values[5 * DAY + 10 : 6 * DAY] = np.nan
    values[DAYS * DAY - 20 :] = np.nan
    assert off(fit(name, values), rates[DAYS * DAY :]) < 0.08


def test_prophet_learns_that_fewer_ask_on_a_holiday() -> None:
    rates = usual()
    days = np.array([BERLIN.local(b).day for b in range(len(rates))])
    rates[np.isin(days, (GOOD_FRIDAY, EASTER_MONDAY))] *= 0.4
    past, monday = counted(rates)[: DAYS * DAY], rates[DAYS * DAY :]
    told = fit("prophet", past, country="DE")
    untold = fit("prophet", past)
    assert told.medians[0, :DAY].sum() == pytest.approx(monday[:DAY].sum(), rel=0.2)
    assert untold.medians[0, :DAY].sum() > 1.8 * monday[:DAY].sum()


def launches(*days: int) -> tuple[DemandEvent, ...]:
    return tuple(
        DemandEvent(
            name="launch",
            models=("s0",),
            start_us=BERLIN.at_us(day * DAY + 20),
            end_us=BERLIN.at_us(day * DAY + 26),
        )
        for day in days
    )


def test_prophet_learns_the_uplift_of_an_announced_event_and_expects_it_of_the_next() -> None:
    rates = usual()
    for day in (3, 8, 15):
        rates[day * DAY + 20 : day * DAY + 26] *= 2.5
    past, ahead = counted(rates)[: DAYS * DAY], rates[DAYS * DAY :]
    told = fit("prophet", past, events=launches(3, 8, 15))
    there = slice(DAY + 20, DAY + 26)
    assert told.medians[0, there].sum() == pytest.approx(ahead[there].sum(), rel=0.15)
    assert off(told, ahead) < 0.08
    assert fit("prophet", past).medians[0, there].sum() < 0.6 * ahead[there].sum()


def test_an_event_of_which_no_occasion_was_seen_changes_nothing() -> None:
    past = counted(usual())[: DAYS * DAY]
    told = fit("prophet", past, events=launches(15))
    assert (told.medians == fit("prophet", past).medians).all()


def test_an_unknown_country_is_said_and_costs_nothing_but_its_holidays() -> None:
    path = fit("prophet", counted(usual())[: DAYS * DAY], country="XX")
    assert path.notes == ("no holidays are known of country 'XX'",)
    assert np.isfinite(path.medians).all()


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_series_without_sense_have_a_defined_answer(name: str) -> None:
    bins = DAYS * DAY
    lone, short = np.full(bins, np.nan), np.full(bins, np.nan)
    lone[100] = 7.0
    short[-DAY:] = counted(usual())[:DAY]
    rare = np.zeros(bins)
    rare[[5, 300]] = 1.0
    wild = counted(usual())[:bins]
    wild[-1] = 1e12
    columns = (np.full(bins, np.nan), np.zeros(bins), np.full(bins, 5.0), lone, short, rare, wild)
    path = fit(name, np.array(columns).T)
    holes, zeros, fives, lonely, brief, seldom, outlier = path.medians
    assert np.isnan(holes).all()
    assert path.notes[0] == "nothing was seen of it"
    assert (zeros == 0).all()
    assert (fives == 5).all()
    assert np.isnan(lonely).all()
    assert np.isnan(brief).all()
    assert path.notes[3] == path.notes[4] == "less than 2 days were seen of it"
    for row in (seldom, outlier):
        assert np.isfinite(row).all()
        assert (row >= 0).all()
    assert (seldom <= 2.0).all()


def test_the_libraries_say_nothing_on_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in HEAVY:
            fit(name, counted(usual())[: DAYS * DAY])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
