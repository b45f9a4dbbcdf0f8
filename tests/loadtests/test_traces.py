"""Trace files: each format's story, and the law that junk is told apart, never a traceback."""

import contextlib
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.traces.files import parse_trace, read_trace
from prewarm.traces.records import HOUR_US, US, Counts, Requests, TraceError

SERVEGEN = "t_s,c0,c1\n0,5,0\n600,7,1\n1200,0,2\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 27, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}\n'
)


def counts_of(text: str) -> Counts:
    found = parse_trace("x.csv", text.encode())
    assert isinstance(found, Counts)
    return found


def requests_of(text: str) -> Requests:
    found = parse_trace("x", text.encode())
    assert isinstance(found, Requests)
    return found


def test_servegen_counts_keep_their_streams_and_bins() -> None:
    found = counts_of(SERVEGEN)
    assert found.streams == ("c0", "c1")
    assert (found.start_us, found.width_us) == (0, 600 * US)
    assert found.counts.tolist() == [[5, 0], [7, 1], [0, 2]]
    assert not found.holes.any()


def test_the_format_is_told_from_the_content_not_from_the_name(tmp_path: Path) -> None:
    disguised = tmp_path / "trace.jsonl"
    disguised.write_bytes(gzip.compress(SERVEGEN.encode()))
    found = read_trace(disguised)
    assert isinstance(found, Counts)
    assert found.counts.sum() == 15


def test_azure_rows_come_in_order_of_time_with_their_lengths() -> None:
    found = requests_of(AZURE)
    assert (found.at_us - found.at_us[0]).tolist() == [0, 52_000]
    assert found.prompt_tokens.tolist() == [4808, 3180]
    assert found.output_tokens.tolist() == [10, 8]
    assert found.prefix_blocks == ()


def test_mooncake_rows_keep_their_prefix_blocks() -> None:
    found = requests_of(MOONCAKE)
    assert found.at_us.tolist() == [0, 27_000]
    assert found.prefix_blocks == ((0, 1), (0, 14))


def test_burstgpt_hours_leave_the_sum_out_and_a_missing_hour_is_a_hole() -> None:
    found = counts_of("day,hour,conversation,api,all\n0,22,38,0,38\n0,23,11,2,13\n1,1,4,0,4\n")
    assert found.streams == ("conversation", "api")
    assert found.width_us == HOUR_US
    assert found.counts.tolist() == [[38, 0], [11, 2], [0, 0], [4, 0]]
    assert found.holes.all(axis=1).tolist() == [False, False, True, False]


def test_an_empty_cell_is_a_hole_and_a_zero_is_not() -> None:
    found = counts_of("timestamp,A,B\n2015-02-26 21:40:00,104,\n2015-02-26 21:45:00,0,53.0\n")
    assert found.counts.tolist() == [[104, 0], [0, 53]]
    assert found.holes.tolist() == [[False, True], [False, False]]
    assert found.width_us == 300 * US


def test_ten_silent_streams_are_a_hole_and_nine_are_a_quiet_night() -> None:
    for streams, hole in ((9, False), (10, True)):
        header = "t_s," + ",".join(f"c{i}" for i in range(streams))
        rows = ["0" + ",1" * streams, "600" + ",0" * streams]
        found = counts_of("\n".join([header, *rows]))
        assert bool(found.holes[1].all()) is hole


def test_model_files_have_their_request_columns_as_streams_and_their_hole_marks() -> None:
    found = counts_of("t_s,a_requests,a_input_tokens,a_hole\n0,5,77.5,0\n600,6,80.1,1\n")
    assert found.streams == ("a",)
    assert found.holes.tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("1,2,3\n4,5,6\n", "no header"),
        ("t_s,c0\n", "no rows"),
        ("t_s,c0\n0,1\n", "single row"),
        ("t_s\n0\n600\n", "no column of counts"),
        ("t_s,c0,c0\n0,1,2\n", "doubled column"),
        ("t_s,c0\n0,1\n600,1,2\n", "line 3: has 3 cells"),
        ("t_s,c0\n0,1\n600,x\n", "line 3, column c0: 'x' is not a count"),
        ("t_s,c0\n0,1\n600,-4\n", "line 3, column c0: '-4' is not a count"),
        ("t_s,c0\n0,1\n600,1.5\n", "'1.5' is not a count"),
        ("t_s,c0\n0,1\nnoon,2\n", "line 3, column t_s: 'noon' is not a time"),
        ("t_s,c0\n0,1\n600,2\n600,2\n", "line 4, column t_s: does not come after"),
        ("t_s,c0\n0,1\n1,2\n2,3\n900000000000,4\n", "check the time column's unit"),
        ("day,hour,api\n0,24,1\n", "hours run from 0 to 23"),
        ("model,client,t_s,x\na,c0,0,1\n", "token statistics"),
        ('{"timestamp": 1}\n', "line 1: is not a request"),
        ('{"timestamp": 0, "input_length": -1, "output_length": 1}\n', "column input_length"),
    ],
)
def test_a_bad_file_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace("mine.csv", text.encode())
    assert str(caught.value).startswith("mine.csv")
    assert told in str(caught.value)


def test_what_is_no_file_or_no_text_is_told_too(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(SERVEGEN.encode())[:-9])
    for path in (tmp_path / "absent.csv", tmp_path, broken):
        with pytest.raises(TraceError):
            read_trace(path)
    with pytest.raises(TraceError, match="not UTF-8"):
        parse_trace("x", b"t_s,c0\n\xff\xfe,1\n")


@given(st.binary(max_size=300))
def test_junk_raises_a_trace_error_or_is_a_trace(data: bytes) -> None:
    with contextlib.suppress(TraceError):
        assert parse_trace("junk", data).duration_us > 0


cells = st.sampled_from(["", "0", "7", "3.0", "-1", "nan", "1e9", "x", "2020-01-01", "9" * 30, '"'])
headers = st.sampled_from(
    ["t_s,c0", "timestamp,value", "day,hour,api", "TIMESTAMP,ContextTokens,GeneratedTokens", '{"a']
)


@given(headers, st.lists(st.lists(cells, max_size=4), max_size=6))
def test_almost_a_trace_raises_a_trace_error_or_is_one(header: str, rows: list[list[str]]) -> None:
    text = "\n".join([header, *(",".join(row) for row in rows)])
    try:
        found = parse_trace("junk", text.encode())
    except TraceError:
        return
    assert found.duration_us > 0


@given(
    st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.none() | st.integers(0, 10**6), min_size=width, max_size=width),
            min_size=2,
            max_size=20,
        )
    )
)
def test_a_written_grid_reads_back(rows: list[list[int | None]]) -> None:
    header = "t_s," + ",".join(f"c{i}" for i in range(len(rows[0])))
    lines = [
        f"{600 * i}," + ",".join("" if cell is None else str(cell) for cell in row)
        for i, row in enumerate(rows)
    ]
    found = counts_of("\n".join([header, *lines]))
    assert found.counts.tolist() == [[cell or 0 for cell in row] for row in rows]
    silent = np.array([len(row) >= 10 and not any(row) for row in rows])
    empty = np.array([[cell is None for cell in row] for row in rows])
    assert (found.holes == (empty | silent[:, None])).all()
