"""What a catalog says about demand: time zone, holidays, events, new models, their prices."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import Catalog, ForecastPolicy
from placement.catalog_diff import diff_catalogs
from placement.catalog_file import CatalogError, Problem, parse_catalog
from placement.catalog_units import TIME_UNITS, UnitError, parse_requests_per_s
from placement.catalog_when import moment_us

MODELS = """\
models:
  - {id: a, engine: external, endpoints: ['http://127.0.0.1:9']}
  - {id: big-b, engine: external, endpoints: ['http://127.0.0.1:9'], aliases: [bee]}
"""


def with_forecast(*lines: str) -> str:
    return MODELS + "forecast:\n" + "".join(f"  {line}\n" for line in lines)


def with_event(*lines: str) -> str:
    """The keys of the one event begin on line 6."""
    first, *rest = lines
    return with_forecast("events:", f"  - {first}", *(f"    {line}" for line in rest))


def read(text: str) -> Catalog:
    return parse_catalog(text, "c.yaml")


def only_problem(text: str) -> Problem:
    with pytest.raises(CatalogError) as caught:
        read(text)
    (problem,) = caught.value.problems
    return problem


def us(when: str) -> int:
    since = datetime.fromisoformat(when).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


# What a good file means


def test_a_catalog_without_the_section_means_what_it_meant() -> None:
    catalog = read(MODELS)
    assert catalog.forecast == ForecastPolicy()
    assert catalog.forecast.heavy == ("prophet", "mstl")
    assert catalog.models[0].like == ""
    assert catalog.models[0].expected_per_s == 0.0


def test_a_start_without_an_offset_is_by_the_clock_of_the_time_zone() -> None:
    event = ("name: sale", "start: 2026-12-01T09:00", "duration: 4 h", "uplift: 3.0")
    text = with_event(*event) + "  time_zone: Europe/Berlin\n"
    (sale,) = read(text).forecast.events
    assert sale.start_us == us("2026-12-01T08:00")  # an hour ahead of UTC in winter
    assert sale.end_us == us("2026-12-01T12:00")
    assert (sale.uplift, sale.expected_per_s, sale.models) == (3.0, 0.0, ())


@pytest.mark.parametrize(
    ("start", "expected_us"),
    [
        ("2026-12-01T09:00+05:30", us("2026-12-01T03:30")),
        ("2026-12-01T09:00Z", us("2026-12-01T09:00")),
        ("2026-07-01", us("2026-06-30T22:00")),
        ("2026-07-01 06:30:15", us("2026-07-01T04:30:15")),
    ],
)
def test_moments_are_read_as_they_are_written(start: str, expected_us: int) -> None:
    text = with_event("name: x", f"start: {start}", "duration: 1 h", "uplift: 2")
    text = text.replace("uplift: 2", "uplift: 2.0") + "  time_zone: Europe/Berlin\n"
    assert read(text).forecast.events[0].start_us == expected_us


def test_a_launch_says_how_many_requests_it_brings() -> None:
    text = with_event("name: x", "models: [a]", "start: 2026-12-01", "duration: 1 d")
    (launch,) = read(text + "      expected: 300/min\n").forecast.events
    assert launch.expected_per_s == 5.0
    assert launch.touches("a")
    assert not launch.touches("big-b")


def test_new_models_say_whom_they_are_like_and_how_often_they_will_be_asked() -> None:
    text = MODELS + "  - {id: c, engine: external, endpoints: ['http://127.0.0.1:9'], "
    *_, c = read(text + "like: a, expected_rate: 36/h}\n").models
    assert (c.like, c.expected_per_s) == ("a", 0.01)


def test_a_model_may_have_a_price_of_its_own() -> None:
    text = """\
models:
  - {id: m, engine: emulated, weights: 1 GB, waiting_to_idle: 4.0}
  - {id: n, engine: emulated, weights: 1 GB}
fleet: {nodes: [{id: n, gpus: 1, gpu: H100-80GB, host_memory: 99 GB}]}
policy: {waiting_to_idle: 19.0}
"""
    catalog = read(text)
    assert [catalog.waiting_to_idle(m) for m in ("m", "n", "gone")] == [4.0, 19.0, 19.0]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("on", ("prophet", "mstl")),
        ("true", ("prophet", "mstl")),
        ("off", ()),
        ("false", ()),
        ("[]", ()),
        ("[mstl]", ("mstl",)),
        ("[mstl, prophet, mstl]", ("prophet", "mstl")),
    ],
)
def test_heavy_forecasters_are_on_off_or_named(written: str, means: tuple[str, ...]) -> None:
    assert read(with_forecast(f"heavy: {written}")).forecast.heavy == means


def test_a_changed_forecast_section_is_told_in_a_diff() -> None:
    old, new = read(MODELS), read(with_forecast("time_zone: Asia/Tokyo"))
    assert diff_catalogs(old, new).forecast_changed
    assert not diff_catalogs(old, old).forecast_changed
    assert old.version != new.version


# What a bad file is told


@pytest.mark.parametrize(
    ("line", "field", "what", "remedy"),
    [
        ("time_zone: Europe/Berlon", "time_zone", "unknown time zone", "Europe/Berlin?"),
        ("time_zone: 1", "time_zone", "unknown time zone", "IANA"),
        ("time-zone: UTC", "time-zone", "unknown key", "Did you mean `time_zone`?"),
        ("country: de", "country", "ISO code", "Two capital letters"),
        ("country: UK", "country", "no public holidays", "Did you mean GB?"),
        ("country: QQ", "country", "no public holidays", "ISO code"),
        ("forecasters: []", "forecasters", "empty list", "at least 1"),
        ("forecasters: week", "forecasters", "expected a list", "`- `"),
        ("heavy: [profet]", "heavy", "unknown heavy forecaster", "Did you mean prophet?"),
        ("heavy: maybe", "heavy", "expected on, off or a list", "prophet, mstl"),
        ("heavy: [[prophet]]", "heavy", "unknown heavy forecaster", "Known: prophet, mstl"),
        ("event: []", "event", "unknown key", "Did you mean `events`?"),
        ("uplift: 3.0", "uplift", "unknown key", "it belongs in `forecast.events`"),
    ],
)
def test_a_mistake_in_the_section_is_told_with_its_line(
    line: str, field: str, what: str, remedy: str
) -> None:
    pytest.importorskip("holidays")
    problem = only_problem(with_forecast(line))
    assert (problem.line, problem.field) == (5, f"forecast.{field}")
    assert what in problem.what
    assert remedy in problem.remedy


GOOD = {
    "name": "x",
    "models": "[a]",
    "start": "2026-12-01",
    "duration": "4 h",
    "uplift": "3.0",
}


@pytest.mark.parametrize(
    ("key", "value", "field", "line", "what", "remedy"),
    [
        ("name", None, "name", 6, "missing", "Add `name: "),
        ("start", None, "start", 6, "missing", "Add `start: 2026-12-01T09:00`"),
        ("duration", None, "duration", 6, "missing", "Add `duration: 4 h`"),
        ("uplift", None, "uplift", 6, "missing: how much more", "`expected: 5/s`"),
        ("start", "tomorrow", "start", 8, "ISO 8601", "2026-12-01T09:00"),
        ("start", "2026-13-01", "start", 8, "ISO 8601", "2026-12-01T09:00"),
        ("start", "1026-12-01", "start", 8, "out of range", "2026-12-01T09:00"),
        ("start", "1764579600", "start", 8, "expected a time", "2026-12-01T09:00"),
        ("duration", "4", "duration", 9, "a bare number", "Write 4 s"),
        ("duration", "0 s", "duration", 9, "takes no time", "4 h"),
        ("duration", "367 d", "duration", 9, "more than a year", "366 d at most"),
        ("uplift", "0", "uplift", 10, "too small", "more than 0"),
        ("uplift", "-2.5", "uplift", 10, "too small", "more than 0"),
        ("uplift", "1e9", "uplift", 10, "too large", "100"),
        ("expected", "5/s", "expected", 11, "not both", "Remove it, or `uplift`"),
        ("models", "[big-c]", "models[0]", 7, "no model has the id big-c", "Did you mean big-b?"),
        ("models", "[a, bee]", "models[1]", 7, "no model has the id bee", "not an alias"),
        ("upflit", "2.0", "upflit", 11, "unknown key", "Did you mean `uplift`?"),
    ],
)
def test_a_mistake_in_an_event_is_told_with_its_line(
    key: str, value: str | None, field: str, line: int, what: str, remedy: str
) -> None:
    keys = {k: v for k, v in (GOOD | {key: value}).items() if v is not None}
    problem = only_problem(with_event(*(f"{k}: {v}" for k, v in keys.items())))
    assert (problem.line, problem.field) == (line, f"forecast.events[0].{field}")
    assert what in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize(("written", "what"), [("5", "a bare number"), ("5 GB/s", "a rate of")])
def test_an_expected_rate_is_of_requests(written: str, what: str) -> None:
    keys = [f"{k}: {v}" for k, v in GOOD.items() if k != "uplift"]
    problem = only_problem(with_event(*keys, f"expected: {written}"))
    assert problem.line == 10
    assert what in problem.what


def test_the_same_event_twice_is_a_mistake_and_another_occasion_is_none() -> None:
    event = "    - {name: x, start: 2026-12-01, duration: 1 h, uplift: 2.0}\n"
    text = with_forecast("events:") + event
    assert len(read(text + event.replace("12-01", "12-08")).forecast.events) == 2
    problem = only_problem(text + event)
    assert (problem.line, problem.field) == (7, "forecast.events[1].name")
    assert "forecast.events[0]" in problem.what


@pytest.mark.parametrize(
    ("like", "what", "remedy"),
    [
        ("big-c", "no model has the id big-c", "Did you mean big-b?"),
        ("zz", "no model has the id zz", "not an alias"),
        ("c", "c is like itself", "a past of its own"),
        ("d", "c is like itself, by way of d", "a past of its own"),
    ],
)
def test_a_model_is_like_another_one(like: str, what: str, remedy: str) -> None:
    text = MODELS + "".join(
        f"  - {{id: {name}, engine: external, endpoints: ['http://127.0.0.1:9'], like: {other}}}\n"
        for name, other in (("c", like), ("d", "c"), ("e", "d"))
    )
    with pytest.raises(CatalogError) as caught:
        read(text)
    problem = caught.value.problems[0]
    assert (problem.line, problem.field) == (4, "models[2].like")
    assert what in problem.what
    assert remedy in problem.remedy


def test_a_price_means_nothing_for_a_model_that_others_run() -> None:
    problem = only_problem(MODELS.replace("id: a,", "id: a, waiting_to_idle: 4.0,"))
    assert problem.field == "models[0].waiting_to_idle"
    assert "external" in problem.what


def test_events_wait_for_models_that_have_problems_of_their_own() -> None:
    text = with_event("name: x", "models: [gone]", "start: 2026-12-01", "duration: 1 h")
    text = (text + "      uplift: 2.0\n").replace("id: a,", "id: a, colour: red,")
    assert "colour" in only_problem(text).what


# Laws


@given(st.floats(0.001, 9999, allow_subnormal=False), st.sampled_from(["s", "min", "h", "d"]))
def test_a_rate_is_so_many_in_that_time(number: float, unit: str) -> None:
    rate = parse_requests_per_s(f"{number:f}/{unit}")
    assert rate * TIME_UNITS[unit] / 1e6 == pytest.approx(float(f"{number:f}"))


@given(st.text(max_size=12))
def test_what_is_no_rate_is_refused_in_words(text: str) -> None:
    try:
        assert parse_requests_per_s(text) > 0
    except UnitError as error:
        assert error.what
        assert error.remedy


def test_an_hour_that_the_clock_skips_or_repeats_still_is_a_moment() -> None:
    """Berlin, 2026: 02:30 is skipped on 29 March and comes twice on 25 October."""
    skipped = moment_us(datetime.fromisoformat("2026-03-29T02:30"), "Europe/Berlin")
    twice = moment_us(datetime.fromisoformat("2026-10-25T02:30"), "Europe/Berlin")
    assert skipped == us("2026-03-29T01:30")
    assert twice == us("2026-10-25T00:30"), "the first of the two"
