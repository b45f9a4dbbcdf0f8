"""Windows tell the whole of what was asked, never less, never twice, and guess no quiet time."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from prewarm.windows import FINE_US, US, Window, WindowBook, fold, level_at

START_US = 1_700_000_000 * US
PATIENCE_US = 30 * US


def book(at_us: int = START_US) -> WindowBook:
    made = WindowBook(at_us, PATIENCE_US)
    made.watch(["m"], at_us)
    return made


def depart(of: WindowBook, at_us: int, *, refused: bool = False, tokens: int = 0) -> None:
    of.depart("m", at_us, refused=refused, prompt_tokens=tokens, output_tokens=2 * tokens)


def test_a_quiet_window_is_a_row_of_zeros_and_not_a_hole() -> None:
    watched = book()
    watched.roll(START_US + FINE_US)
    (row,) = [w.row() for w in watched.take()]
    assert (row.offered, row.conc_mean, row.conc_max) == (0, 0.0, 0)
    assert row.covered_s == 10.0


def test_the_first_window_is_covered_from_when_somebody_watched() -> None:
    watched = book(START_US + 7 * US)
    watched.roll(START_US + FINE_US)
    (window,) = watched.take()
    assert window.start_us == START_US
    assert window.row().covered_s == 3.0


def test_concurrency_is_weighted_by_time() -> None:
    watched = book()
    watched.arrive("m", START_US + 2 * US, retry=False)
    watched.arrive("m", START_US + 5 * US, retry=False)
    depart(watched, START_US + 6 * US)
    depart(watched, START_US + 9 * US)
    watched.roll(START_US + FINE_US)
    (row,) = [w.row() for w in watched.take()]
    assert row.conc_mean == (1 * 3 + 2 * 1 + 1 * 3) / 10
    assert (row.conc_max, row.conc_p50, row.conc_p95) == (2, 1, 2)


def test_a_request_counts_where_it_came_and_its_tokens_where_it_ended() -> None:
    watched = book()
    watched.arrive("m", START_US + 9 * US, retry=False)
    depart(watched, START_US + 12 * US, tokens=5)
    watched.roll(START_US + 2 * FINE_US)
    first, second = (w.row() for w in watched.take())
    assert (first.offered, first.output_tokens) == (1, 0)
    assert (second.offered, second.prompt_tokens, second.output_tokens) == (0, 5, 10)


def test_a_retry_is_no_demand_of_its_own_and_a_refusal_is_demand() -> None:
    watched = book()
    watched.arrive("m", START_US, retry=False)
    depart(watched, START_US + 1, refused=True)
    watched.arrive("m", START_US + 2, retry=True)
    depart(watched, START_US + 3)
    (row,) = [w.row() for w in watched.finish(START_US + US)]
    assert (row.offered, row.retries, row.refused) == (1, 1, 1)


def test_a_late_request_never_lands_in_a_window_that_is_over() -> None:
    watched = book()
    watched.arrive("m", START_US + 25 * US, retry=False)  # nobody rolled meanwhile
    watched.roll(START_US + 3 * FINE_US)
    assert [w.offered for w in watched.take()] == [0, 0, 1]


def test_a_process_that_was_stopped_leaves_a_hole() -> None:
    watched = book()
    late_us = START_US + 100 * FINE_US + 4 * US
    watched.roll(late_us)
    assert [w.start_us for w in watched.take()] == [START_US]
    watched.roll(late_us + FINE_US)
    (row,) = [w.row() for w in watched.take()]
    assert row.start_us == START_US + 100 * FINE_US
    assert row.covered_s == 6.0


def test_a_model_that_leaves_is_watched_until_its_last_request_ended() -> None:
    watched = book()
    watched.arrive("m", START_US, retry=False)
    watched.watch([], START_US + US)
    depart(watched, START_US + 2 * US)
    watched.watch([], START_US + 3 * US)
    (row,) = [w.row() for w in watched.finish(START_US + 9 * US)]
    assert (row.offered, row.covered_s) == (1, 3.0)


def test_a_catalog_that_changes_late_stretches_no_window() -> None:
    watched = book()
    watched.watch(["new"], START_US + FINE_US + 3 * US)  # nobody rolled meanwhile
    rows = [w.row() for w in watched.finish(START_US + 2 * FINE_US)]
    covered = {(row.model, row.start_us): row.covered_s for row in rows}
    second_us = START_US + FINE_US
    assert covered == {("m", START_US): 10.0, ("m", second_us): 3.0, ("new", second_us): 7.0}


@dataclass(frozen=True)
class Stay:
    """A request: when it came, how long it stayed."""

    came_us: int
    stay_us: int


stays = st.lists(
    st.builds(Stay, st.integers(0, 120 * US), st.integers(0, 60 * US)), min_size=1, max_size=30
)
rolls = st.lists(st.integers(0, 200 * US), max_size=30)


@given(stays, rolls)
def test_windows_add_up_to_what_happened_however_often_they_are_closed(
    asked: list[Stay], rolled: list[int]
) -> None:
    watched = WindowBook(START_US, 1000 * FINE_US)
    watched.watch(["m"], START_US)
    moments = [(s.came_us, 1, s) for s in asked] + [(s.came_us + s.stay_us, 2, s) for s in asked]
    moments += [(at_us, 0, asked[0]) for at_us in rolled]
    end_us = 0
    for at_us, kind, _ in sorted(moments, key=lambda m: m[:2]):
        end_us = at_us
        if kind == 0:
            watched.roll(START_US + at_us)
        elif kind == 1:
            watched.arrive("m", START_US + at_us, retry=False)
        else:
            depart(watched, START_US + at_us, tokens=1)
    windows = watched.finish(START_US + end_us + US)
    assert sum(w.offered for w in windows) == len(asked)
    assert sum(w.prompt_tokens for w in windows) == len(asked)
    assert sum(w.covered_us for w in windows) == end_us + US
    area = sum(level * us for w in windows for level, us in w.levels_us.items())
    assert area == sum(s.stay_us for s in asked)
    starts = [w.start_us for w in windows]
    assert starts == sorted(set(starts))
    assert all(0 < w.covered_us <= FINE_US for w in windows)


levels = st.dictionaries(st.integers(0, 50), st.integers(1, 10 * US), min_size=1, max_size=8)
parts = st.lists(
    st.builds(
        Window,
        model=st.just("m"),
        start_us=st.just(START_US),
        width_s=st.just(10),
        offered=st.integers(0, 99),
        refused=st.integers(0, 99),
        levels_us=levels,
    ),
    min_size=1,
    max_size=6,
)


@given(parts, st.integers(1, 5))
def test_folding_in_two_steps_is_folding_at_once(windows: list[Window], cut: int) -> None:
    at_once = fold(windows, START_US, 60)
    first, rest = windows[:cut], windows[cut:]
    steps = [fold(first, START_US, 60), *([fold(rest, START_US, 60)] if rest else [])]
    assert fold(steps, START_US, 60) == at_once
    assert at_once.offered == sum(w.offered for w in windows)


@given(levels, st.sampled_from([0.5, 0.95, 1.0]))
def test_a_percentile_is_the_level_not_exceeded_for_that_share(
    spent: dict[int, int], share: float
) -> None:
    level = level_at(spent, share)
    total = sum(spent.values())
    assert sum(us for x, us in spent.items() if x <= level) >= share * total
    assert sum(us for x, us in spent.items() if x < level) < share * total
