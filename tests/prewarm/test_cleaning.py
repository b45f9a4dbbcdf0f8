"""Laws of the repair: it raises on no values, invents nothing, and is at rest after one go."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prewarm.cleaning import Cleaned, Raw, clean, coarser
from prewarm.grids import grid_of
from prewarm.series import Panel
from prewarm.traces.records import TraceError
from prewarm.traces.rows import parse_rows

US = 1_000_000

cells = st.one_of(
    st.just(float("nan")),
    st.integers(0, 5).map(float),
    st.floats(allow_nan=True, allow_infinity=True, width=64),
)


@st.composite
def dirty(draw: st.DrawFn) -> Raw:
    """Rows near a grid, some far from it, in any order, with cells of any kind."""
    rows, streams = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    near = st.integers(0, 60).map(lambda i: 1_700_000_000 * US + i * 300 * US)
    late = st.integers(-200 * US, 200 * US)
    far = st.sampled_from([0, 4_000_000_000 * US, -(10**15)])
    times = st.one_of(near, st.builds(int.__add__, near, late), far)
    return Raw(
        name="dirty",
        streams=tuple(f"s{i}" for i in range(streams)),
        at_us=np.array(draw(st.lists(times, min_size=rows, max_size=rows)), np.int64),
        values=draw(hnp.arrays(np.float64, (rows, streams), elements=cells)),
        lines=np.arange(2, rows + 2),
        width_us=draw(st.sampled_from([0, 300 * US])),
    )


def cleaned(raw: Raw) -> Cleaned | None:
    """None: the times are so far apart that no grid of a sane size holds them."""
    try:
        return clean(raw)
    except TraceError as error:
        assert "check the time column" in str(error)
        return None


@given(dirty())
@settings(max_examples=200, deadline=None)
def test_whatever_the_rows_hold_nothing_is_negative_or_infinite(raw: Raw) -> None:
    found = cleaned(raw)
    if found is None:
        return
    values = found.panel.values
    assert not np.isinf(values).any()
    assert not (values < 0).any()
    assert not np.signbit(values[~np.isnan(values)]).any()
    assert set(found.notes) == set(raw.streams)


@given(dirty())
@settings(max_examples=200, deadline=None)
def test_every_number_was_in_the_rows_and_nothing_is_added_up(raw: Raw) -> None:
    found = cleaned(raw)
    if found is None:
        return
    for at in range(len(raw.streams)):
        column = found.panel.values[:, at]
        assert set(column[~np.isnan(column)]) <= set(raw.values[:, at] + 0.0)


@given(dirty())
@settings(max_examples=200, deadline=None)
def test_a_repaired_panel_needs_no_more_repair(raw: Raw) -> None:
    found = cleaned(raw)
    if found is None:
        return
    panel = found.panel
    again = clean(_raw_of(panel))
    np.testing.assert_array_equal(again.panel.values, panel.values)
    assert again.panel.calendar == panel.calendar


def _raw_of(panel: Panel) -> Raw:
    bins = len(panel)
    starts = [panel.calendar.at_us(index) for index in range(bins)]
    return Raw(
        name="again",
        streams=panel.streams,
        at_us=np.array(starts, np.int64),
        values=panel.values,
        lines=np.arange(bins),
        width_us=panel.calendar.width_us,
    )


words = st.one_of(
    st.sampled_from(
        ["", "0", "7", "-3", "1e308", "nan", "-inf", "2024-03-31 02:30", "2024-10-27T02:30:00",
         "9999-12-31 23:59", "0001-01-01", "1714543200000", "1e18", "99999999999999999999999",
         "t_s", "time", "a", "a_hole", "a_requests", "day", "hour", "all", '"', "'", "{", "x"]
    ),
    st.text(max_size=6),
)  # fmt: skip


@given(st.lists(st.lists(words, max_size=4), max_size=12), st.sampled_from(",;\t"))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_sound_panel_or_an_error_in_words(
    rows: list[list[str]], delimiter: str
) -> None:
    text = "\n".join(delimiter.join(row) for row in rows)
    for table in (text, "time,a,b\n" + text, "day,hour,a\n" + text):
        try:
            raw, notes = parse_rows("any", table, "Europe/Berlin")
            found = clean(raw, "Europe/Berlin", notes)
        except TraceError as error:
            assert str(error).startswith("any")
            continue
        values = found.panel.values
        assert not np.isinf(values).any()
        assert not (values < 0).any()


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=50, unique=True))
def test_bins_ascend_and_no_row_moves_further_than_it_may(times: list[int]) -> None:
    at_us = np.array(sorted(times), np.int64)
    grid = grid_of(at_us)
    assert (np.diff(grid.places) >= 0).all()
    moved = np.abs(at_us - (grid.start_us + grid.places * grid.width_us)) / grid.width_us
    assert (moved <= 0.75 + 1e-9).all()


@given(
    hnp.arrays(np.float64, (24, 3), elements=st.one_of(st.just(np.nan), st.integers(0, 9))),
    st.sampled_from([1, 2, 3, 4, 6]),
)
def test_wider_bins_hold_the_same_sum_where_there_is_no_hole(
    values: np.ndarray, times: int
) -> None:
    rows = Raw(
        name="x",
        streams=("a", "b", "c"),
        at_us=np.arange(24, dtype=np.int64) * 60 * US,
        values=values,
        lines=np.arange(24),
        width_us=60 * US,
    )
    wide = coarser(clean(rows).panel, times * 60 * US)
    expected = values.reshape(24 // times, times, 3).sum(axis=1)
    np.testing.assert_array_equal(wide.values, expected)
