"""Files of past demand as people have them: each mistake has a result, and a note that tells it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loadtests.trace_places import traces_folder
from prewarm.cleaning import Cleaned
from prewarm.traces.files import read_trace
from prewarm.traces.lenient import read_panel
from prewarm.traces.records import Counts, Requests, TraceError

MINUTE_US = 60_000_000
HOLE = np.nan

Read = Callable[..., Cleaned]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def reading(text: str, **how: object) -> Cleaned:
        path = tmp_path / "demand.csv"
        path.write_text(text, encoding="utf-8")
        return read_panel(path, **how)  # type: ignore[arg-type]

    return reading


def same(found: Cleaned, *expected: float, at: int = 0) -> None:
    np.testing.assert_array_equal(found.panel.values[:, at], expected)


def told(found: Cleaned, stream: str = "a") -> str:
    return "; ".join(found.notes[stream])


def test_a_clean_file_has_no_notes(read: Read) -> None:
    found = read("t_s,a,b\n0,1,2\n60,3,4\n120,5,7\n")
    same(found, 1, 3, 5)
    assert found.notes == {"a": (), "b": ()}
    assert (found.panel.calendar.start_us, found.panel.calendar.width_us) == (0, MINUTE_US)
    assert found.panel.whole


def test_streams_may_be_called_by_numbers(read: Read) -> None:
    found = read("t_s,0,inf\n0,1,2\n60,3,4\n")
    assert found.panel.streams == ("0", "inf")
    same(found, 1, 3)


def test_a_gap_and_an_empty_cell_are_holes(read: Read) -> None:
    found = read("t_s,a,b\n0,1,1\n60,,2\n240,3,3\n300,4,4\n360,5,5\n")
    same(found, 1, HOLE, HOLE, HOLE, 3, 4, 5)
    assert told(found) == ("3 of 7 bins are holes, the longest of 3 bins from 1970-01-01 00:01:00Z")


def test_cells_that_count_nothing_are_holes_and_are_named(read: Read) -> None:
    found = read("t_s,a,b\n0,-4,1\n60,NaN,inf\n120,lots,1e300\n180,7,2\n")
    same(found, HOLE, HOLE, HOLE, 7)
    same(found, 1, HOLE, HOLE, 2, at=1)
    assert "1 x a negative value, now a hole (line 2: -4)" in told(found)
    assert "2 x a cell that is no number, now a hole (first line 3: 'NaN')" in told(found)
    assert "1 x an infinite value, now a hole (line 3: inf)" in told(found, "b")
    assert "1 x a value beyond reason, now a hole (line 4: 1e+300)" in told(found, "b")


def test_a_repeated_row_counts_once(read: Read) -> None:
    found = read("t_s,a\n0,1\n60,2\n60,2\n120,3\n")
    same(found, 1, 2, 3)
    assert told(found) == "1 x a row repeats the time of another, one is kept (line 4)"


def test_of_two_values_for_one_time_the_later_holds_but_an_empty_cell_corrects_none(
    read: Read,
) -> None:
    found = read("t_s,a,b\n0,1,1\n60,2,5\n60,9,\n120,3,3\n")
    same(found, 1, 9, 3)
    same(found, 1, 5, 3, at=1)
    assert "two values for one bin, the later one kept (line 4: 9, not 2)" in told(found)
    assert "two values" not in told(found, "b")


def test_rows_out_of_order_are_sorted(read: Read) -> None:
    found = read("t_s,a\n120,3\n0,1\n60,2\n180,4\n")
    same(found, 1, 2, 3, 4)
    assert "1 x a step back in time, its rows put in order (line 3: 2 min back)" in told(found)


def test_a_clock_that_ran_ahead_for_a_while_is_overwritten_by_the_one_set_right(
    read: Read,
) -> None:
    found = read("t_s,a\n0,1\n60,2\n240,30\n300,40\n180,5\n240,6\n300,7\n360,8\n")
    same(found, 1, 2, HOLE, 5, 6, 7, 8)
    assert "a step back in time" in told(found)
    assert "2 x two values for one bin, the later one kept (first line 7: 6, not 30)" in told(found)


def test_a_row_of_another_age_is_left_out(read: Read) -> None:
    """A clock that starts at 1970 until the network is there, and one far ahead."""
    rows = [f"{1_700_000_000 + 60 * i},{i}" for i in range(50)]
    found = read("\n".join(["t_s,a", "0,77", *rows, "4000000000,88"]))
    same(found, *range(50))
    assert "2 x a row far from all others in time, left out (first line 2: 1970-01-01" in told(
        found
    )


def test_an_outage_of_weeks_in_the_midst_of_months_is_a_hole_and_no_other_age(read: Read) -> None:
    days = [*range(40), *range(75, 120)]
    found = read("\n".join(["t_s,a", *(f"{86_400 * day},5" for day in days)]))
    assert len(found.panel) == 120
    assert np.isnan(found.panel.values[40:75]).all()


def test_times_off_by_seconds_fall_onto_the_grid(read: Read) -> None:
    jitter = [0, 2, -3, 1, 4, -2, 3, -1]
    rows = [f"{600 + 300 * i + late},{i}" for i, late in enumerate(jitter)]
    found = read("\n".join(["t_s,a", *rows]))
    same(found, *range(8))
    assert found.panel.calendar.width_us == 300_000_000
    assert "off the grid of 5 min, moved onto it" in told(found)


def test_a_row_cut_short_and_one_without_a_time(read: Read) -> None:
    found = read("t_s,a,b\n0,1,1\n60,2\nyesterday,9,9\n120,3,3\n")
    same(found, 1, 2, 3)
    same(found, 1, HOLE, 3, at=1)
    assert "1 x a row that is cut short, its missing cells are holes (line 3)" in told(found)
    assert "1 x a row without a time that can be read, left out (line 4: 'yesterday')" in told(
        found
    )


def test_ten_streams_that_are_all_zero_are_a_hole_and_nine_are_not(read: Read) -> None:
    def text(streams: int) -> str:
        names = ",".join(f"s{i}" for i in range(streams))
        rows = [f"{60 * t}," + ",".join([value] * streams) for t, value in enumerate("102")]
        return "\n".join([f"t_s,{names}", *rows])

    same(read(text(9)), 1, 0, 2)
    ten = read(text(10))
    same(ten, 1, HOLE, 2)
    assert "1 bins in which all streams were 0 are holes, the first at 1970" in told(ten, "s3")


def total(increments: list[int], reset_at: int) -> list[int]:
    """A counter over these increments that falls to nothing before one of them."""
    shown, stands = [], 5000
    for at, added in enumerate(increments):
        stands = added if at == reset_at else stands + added
        shown.append(stands)
    return shown


def test_a_running_total_becomes_its_increments_and_its_reset_loses_none(read: Read) -> None:
    added = [10 + (7 * i) % 13 for i in range(200)]
    rows = [f"{60 * i},{value}" for i, value in enumerate(total(added, 120))]
    found = read("\n".join(["t_s,a", *rows]))
    same(found, HOLE, *added[1:])
    assert "a running total with 1 resets" in told(found)


def test_demand_that_climbs_is_no_running_total(read: Read) -> None:
    ramp = [100 + i for i in range(300)]
    saw = [i % 48 for i in range(300)]
    steps = [5 * (i // 60) if i < 240 else 0 for i in range(300)]
    rows = [
        f"{60 * i},{a},{b},{c}" for i, (a, b, c) in enumerate(zip(ramp, saw, steps, strict=True))
    ]
    found = read("\n".join(["t_s,a,b,c", *rows]))
    for at, values in enumerate((ramp, saw, steps)):
        same(found, *values, at=at)
    assert found.notes == {"a": (), "b": (), "c": ()}


def test_one_lone_row_a_constant_and_sixty_days_of_zeros_are_fine(read: Read) -> None:
    lone = read("t_s,a\n0,7\n")
    same(lone, 7)
    assert "a single row: taken for a bin of 5 min" in told(lone)
    constant = read("\n".join(["t_s,a", *(f"{60 * i},5" for i in range(10))]))
    assert told(constant) == "always 5"
    zeros = read("\n".join(["t_s,a", *(f"{3600 * i},0" for i in range(24 * 60))]))
    assert told(zeros) == "nothing but zeros"
    assert len(zeros.panel) == 1440
    assert not zeros.panel.values.any()


def test_a_stream_without_a_value_is_all_holes(read: Read) -> None:
    found = read("t_s,a,b\n0,,1\n60,,2\n")
    assert told(found) == "all bins are holes: there is nothing to forecast from"


def test_averages_are_not_counts(read: Read) -> None:
    assert not read("t_s,a\n0,1.5\n60,2\n").panel.whole


def test_zones_are_honoured_and_times_without_one_are_local(read: Read) -> None:
    there = read("time,a\n2024-05-01T08:00:00+02:00,1\n2024-05-01T08:05:00+02:00,2\n")
    utc = read("time,a\n2024-05-01 06:00:00,1\n2024-05-01 06:05:00,2\n")
    local = read("time,a\n2024-05-01 08:00,1\n2024-05-01 08:05,2\n", zone="Europe/Berlin")
    starts = {found.panel.calendar.start_us for found in (there, utc, local)}
    assert starts == {1_714_543_200_000_000}  # 2024-05-01T06:00Z
    assert local.panel.calendar.zone == "Europe/Berlin"


def test_the_hour_that_comes_twice_is_two_hours_and_the_one_that_never_comes_is_no_hole(
    read: Read,
) -> None:
    autumn = [f"2024-10-27 {h:02}:{m:02}" for h in (1, 2, 2, 3) for m in (0, 30)]
    found = read("\n".join(["time,a", *(f"{t},{i}" for i, t in enumerate(autumn))]),
                 zone="Europe/Berlin")  # fmt: skip
    same(found, *range(8))
    assert found.notes["a"] == ()
    spring = [f"2024-03-31 {h:02}:{m:02}" for h in (0, 1, 3, 4) for m in (0, 30)]
    found = read("\n".join(["time,a", *(f"{t},{i}" for i, t in enumerate(spring))]),
                 zone="Europe/Berlin")  # fmt: skip
    same(found, *range(8))
    assert found.notes["a"] == ()


def test_milliseconds_since_1970_are_told_by_their_size_or_their_name(read: Read) -> None:
    by_size = read("time,a\n1714543200000,1\n1714543260000,2\n")
    by_name = read("t_ms,a\n1714543200000,1\n1714543260000,2\n")
    for found in (by_size, by_name):
        assert found.panel.calendar.start_us == 1_714_543_200_000_000
        assert found.panel.calendar.width_us == MINUTE_US


def test_spreadsheets_semicolons_and_an_index_column_are_understood(read: Read) -> None:
    same(read("\ufefft_s;a;b\n0;1;2\n60;3;4\n"), 1, 3)
    frame = read(",timestamp,a\n0,2024-05-01 06:00,5\n1,2024-05-01 06:05,6\n")
    assert frame.panel.streams == ("a",)
    same(frame, 5, 6)


def test_columns_of_one_name_are_told_apart(read: Read) -> None:
    assert read("t_s,a,a\n0,1,2\n60,3,4\n").panel.streams == ("a", "a (2)")


def test_hole_marks_hold_for_requests_and_tokens(read: Read) -> None:
    found = read("t_s,m_requests,m_output_tokens,m_hole\n0,1,10,0\n60,2,20,1\n120,3,30,0\n")
    assert found.panel.streams == ("m", "m_output_tokens")
    same(found, 1, HOLE, 3)
    same(found, 10, HOLE, 30, at=1)


def test_wider_bins_are_sums_and_a_hole_within_makes_one_of_all(read: Read) -> None:
    text = "t_s,a\n60,1\n120,2\n180,3\n240,4\n300,\n360,6\n420,7\n"
    found = read(text, bin_us=2 * MINUTE_US)
    assert found.panel.calendar.start_us == 2 * MINUTE_US
    same(found, 5, HOLE, 13)
    with pytest.raises(TraceError, match="not made of whole bins of 1 min"):
        read(text, bin_us=90_000_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("just words\nin lines\n", "is no table"),
        ("0,1\n60,2\n", "has no header"),
        ("2024-05-07T00:00,a\n2024-05-07T01:00,2\n", "has no header"),
        ("t_s,a\n", "has no row that can be read"),
        ("t_s,a\nx,1\ny,2\n", "has no row that can be read"),
        ("t_s,x_hole\n0,1\n", "has no column of counts"),
        ('{"no": "request"}\n', "is not a request"),
    ],
)
def test_what_is_no_table_is_refused_in_words(read: Read, text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read(text)


def test_an_unknown_zone_is_refused(read: Read) -> None:
    with pytest.raises(TraceError, match="Europe/Berlin"):
        read("t_s,a\n0,1\n60,2\n", zone="Mars/Olympus")


def test_requests_are_binned_into_requests_and_tokens(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    rows = [(0, 10, 1), (4, 20, 2), (11, 30, 3), (25, 40, 4), (31, 50, 5)]
    lines = [f"2023-11-16 18:00:{s:02}.0000000,{p},{o}" for s, p, o in rows]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    found = read_panel(path, bin_us=10_000_000)
    assert found.panel.streams == ("requests", "prompt_tokens", "output_tokens")
    # 30 s are full of the 31 s; the request at 31 s lies in a bin of which nobody saw the end.
    np.testing.assert_array_equal(found.panel.values, [[2, 30, 3], [1, 30, 3], [1, 40, 4]])


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "demand.csv.gz"
    path.write_bytes(gzip.compress(b"t_s,a\n0,1\n60,2\n"))
    same(read_panel(path), 1, 2)


TRACES = traces_folder(None, Path.cwd())


@pytest.mark.skipif(not TRACES.is_dir(), reason="no public traces at hand")
def test_the_lenient_reader_and_the_strict_one_agree_on_the_public_traces() -> None:
    compared = 0
    for path in [*TRACES.rglob("*.csv"), *TRACES.rglob("*.csv.gz"), *TRACES.rglob("*.jsonl")]:
        try:
            strict = read_trace(path)
        except TraceError:
            with pytest.raises(TraceError):
                read_panel(path)
            continue
        panel = read_panel(path).panel
        compared += 1
        if isinstance(strict, Requests):
            full_us = panel.calendar.at_us(len(panel))
            assert panel.values[:, 0].sum() == np.count_nonzero(strict.at_us < full_us)
            continue
        _same_counts(strict, panel.streams, panel.values)
        assert panel.calendar.width_us == strict.width_us
    assert compared > 5


def _same_counts(strict: Counts, streams: tuple[str, ...], values: np.ndarray) -> None:
    expected = np.where(strict.holes, np.nan, strict.counts.astype(float))
    places = [streams.index(name) for name in strict.streams]
    np.testing.assert_array_equal(values[:, places], expected)
