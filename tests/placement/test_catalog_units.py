"""Human units: what is written is what is read, and nothing is guessed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog_units import (
    UnitError,
    human_bytes,
    human_time,
    parse_bytes,
    parse_count,
    parse_rate,
    parse_time_us,
    write_bytes,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("16 GB", 16 * 10**9),
        ("16.1GB", 16_100_000_000),
        ("15 GiB", 15 * 2**30),
        ("128 KiB", 131_072),
        ("22.5 KiB", 23_040),
        ("13476831232 B", 13_476_831_232),
        ("0 B", 0),
        ("1 TB", 10**12),
    ],
)
def test_sizes_mean_what_they_say(text: str, meant: int) -> None:
    assert parse_bytes(text) == meant


@pytest.mark.parametrize(
    ("text", "us"),
    [("30 s", 30_000_000), ("500 ms", 500_000), ("5 min", 300_000_000), ("1.5h", 5_400_000_000)],
)
def test_times_mean_what_they_say(text: str, us: int) -> None:
    assert parse_time_us(text) == us


def test_rates_and_counts() -> None:
    assert parse_rate("22 GB/s") == 22 * 10**9
    assert parse_count("8B") == 8 * 10**9
    assert parse_count("567M") == 567 * 10**6
    assert parse_count(8_030_261_248) == 8_030_261_248


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (16, "Write 16 GB or 15 GiB"),
        (131_072, "Write 131072 B, 128 KiB or for example 16 GB"),
        ("16", "Write for example 16 GB (10^9) or 15 GiB (2^30)"),
    ],
)
def test_a_bare_number_is_told_its_units(value: object, remedy: str) -> None:
    with pytest.raises(UnitError) as told:
        parse_bytes(value)
    assert told.value.what == "a bare number does not say which unit"
    assert told.value.remedy == remedy


@pytest.mark.parametrize("value", [True, None, [], "", "GB", "-1 GB", "1e3 GB", "16 Gb", "9" * 99])
def test_nothing_is_guessed(value: object) -> None:
    for parse in (parse_bytes, parse_rate, parse_time_us, parse_count):
        with pytest.raises(UnitError):
            parse(value)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_survives_being_written(n: int) -> None:
    assert parse_bytes(write_bytes(n)) == n


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_only_unit_errors_come_out(value: object) -> None:
    for parse in (parse_bytes, parse_rate, parse_time_us, parse_count):
        with contextlib.suppress(UnitError):
            assert 0 <= parse(value) <= 2**60


def test_people_get_round_figures() -> None:
    assert human_bytes(38_400_000_000) == "38.4 GB"
    assert human_bytes(16 * 10**9) == "16 GB"
    assert human_bytes(512) == "512 B"
    assert human_time(1_300_000) == "1.3 s"
    assert human_time(90_000_000) == "1.5 min"
