"""`warmtide events`: what is announced, what is refused and in which words."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.main import cli
from gateway.words import BadInputError
from prewarm.event_file import read_events

CATALOG = """\
models:
  - {id: alpha, engine: external, endpoints: ['http://127.0.0.1:9']}
  - {id: beta, engine: external, endpoints: ['http://127.0.0.1:9']}
forecast:
  time_zone: Europe/Berlin
  events:
    - {name: opening, start: 2026-12-01, duration: 1 d, uplift: 2.0}
"""
START = ("--start", "2046-12-01T09:00")
SALE = (*START, "--duration", "4h", "--uplift", "3")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    file = tmp_path / "c.yaml"
    file.write_text(CATALOG, encoding="utf-8")
    return str(file)


def events(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["events", *arguments, "--state-dir", str(state)])


def refusal(state: Path, *arguments: str) -> str:
    """`main` makes this error a sentence and exit code 2; nothing may have been written."""
    before = read_events(state)
    result = events(state, *arguments)
    assert isinstance(result.exception, BadInputError)
    assert read_events(state) == before
    return str(result.exception)


# What is announced


def test_an_event_is_announced_listed_and_taken_back(state: Path, catalog: str) -> None:
    named = ("--catalog", catalog)
    added = events(state, "add", "sale", "--models", "alpha, beta", *SALE, *named)
    assert added.exit_code == 0, added.stderr
    assert added.stdout == (
        "announced: sale, 2046-12-01T09:00:00+01:00 to 2046-12-01T13:00:00+01:00: "
        "3 times the usual of alpha, beta\n"
    )
    assert added.stderr == ""
    listed = events(state, "list", *named).stdout
    for word in ("sale", "opening", "alpha, beta", "to come", "announced", "catalog"):
        assert word in listed
    assert events(state, "remove", "sale", *named).stdout.startswith("removed: sale, 2046")
    assert read_events(state) == ()


def test_all_of_it_as_json(state: Path, catalog: str) -> None:
    named = ("--catalog", catalog, "--json")
    added = json.loads(events(state, "add", "sale", *SALE, *named).stdout)
    sale = {
        "name": "sale",
        "models": [],
        "start": "2046-12-01T08:00:00+00:00",
        "end": "2046-12-01T12:00:00+00:00",
        "uplift": 3.0,
        "expected_per_s": None,
        "source": "announced",
        "phase": "to come",
    }
    assert added == {"event": sale, "models_checked": True}
    opening, listed = json.loads(events(state, "list", *named).stdout)["events"]
    assert listed == sale
    assert (opening["name"], opening["source"]) == ("opening", "catalog")
    assert json.loads(events(state, "remove", "sale", *named).stdout) == {"removed": [sale]}


def test_a_launch_is_announced_with_its_rate(state: Path) -> None:
    asked = ("add", "launch", "--models", "new", *START, "--end", "2046-12-02", "--expected", "5/s")
    assert "5/s of new" in events(state, *asked).stdout
    (launch,) = read_events(state)
    assert launch.expected_per_s == 5.0
    assert launch.end_us - launch.start_us == 15 * 3600 * 1_000_000


def test_without_a_catalog_it_is_said_that_nothing_was_looked_up(state: Path) -> None:
    added = events(state, "add", "sale", "--models", "whoever", *SALE)
    assert added.exit_code == 0
    assert "models were not looked up" in added.stderr
    assert "+00:00" in added.stdout
    told = json.loads(events(state, "add", "other", *SALE, "--json").stdout)
    assert told["models_checked"] is False


def test_nothing_is_announced_to_begin_with(state: Path) -> None:
    assert "nothing is announced" in events(state, "list").stdout
    assert json.loads(events(state, "list", "--json").stdout) == {"events": []}


# What is refused


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((*START, "--duration", "4h"), "how much is asked: add --uplift 3.0, or --expected 5/s"),
        ((*START, "--uplift", "3"), "give --duration 4h or --end, one of the two"),
        ((*SALE, "--end", "2046-12-02"), "give --duration 4h or --end, one of the two"),
        ((*SALE, "--expected", "5/s"), "--expected 5/s: an event has a factor on the usual or"),
        (
            (*START, "--end", "2046-11-01", "--uplift", "3"),
            "--end 2046-11-01: is not after --start 2046-12-01T09:00",
        ),
        ((*START, "--end", "soon", "--uplift", "3"), "--end soon: not a time in ISO 8601"),
        (("--start", "soon", *SALE[2:]), "--start soon: not a time in ISO 8601. Write for example"),
        ((*START, "--duration", "4", "--uplift", "3"), "--duration 4: a bare number"),
        ((*START, "--duration", "9999999d", "--uplift", "3"), "lasts for more than a year"),
        ((*START, "--duration", "0s", "--uplift", "3"), "--duration 0s: an event that takes no"),
        ((*SALE[:-1], "0"), "--uplift 0.0: too small. Write more than 0"),
        ((*SALE[:-1], "-1"), "--uplift -1.0: too small"),
        ((*SALE[:-1], "nan"), "--uplift nan: expected a finite number"),
        ((*SALE[:-1], "1000"), "--uplift 1000.0: too large. Write 100.0 or less"),
        ((*SALE[:-2], "--expected", "5"), "--expected 5: a rate"),
        ((*SALE, "--models", "alpah"), "--models alpah: no model has the id alpah. Did you mean a"),
    ],
)
def test_what_cannot_be_announced_is_told_by_its_option(
    state: Path, catalog: str, given: tuple[str, ...], told: str
) -> None:
    assert told.replace("5: a rate", "5: expected a rate of requests") in refusal(
        state, "add", "sale", "--catalog", catalog, *given
    )


def test_a_name_is_a_name(state: Path) -> None:
    assert "NAME a b: not a usable name" in refusal(state, "add", "a b", *SALE)


def test_the_same_event_is_announced_once(state: Path, catalog: str) -> None:
    named = ("--catalog", catalog)
    events(state, "add", "sale", *SALE, *named)
    assert "sale at 2046-12-01T09:00 is announced already" in refusal(
        state, "add", "sale", *START, "--duration", "1h", "--uplift", "9", *named
    )
    again = ("--start", "2026-12-01", "--duration", "1h", "--uplift", "9")
    assert "is announced in the catalog" in refusal(state, "add", "opening", *again, *named)


def test_what_is_not_there_cannot_be_removed(state: Path, catalog: str) -> None:
    events(state, "add", "sale", *SALE)
    assert "did you mean sale?" in refusal(state, "remove", "sal")
    assert "`warmtide events list` shows" in refusal(state, "remove", "quite-another")
    assert "stands in the catalog" in refusal(state, "remove", "opening", "--catalog", catalog)
    assert "no sale starts then, but at 2046-12-01T09:00:00+00:00" in refusal(
        state, "remove", "sale", "--start", "2046-12-02"
    )


def test_what_is_over_is_kept_unless_it_is_said_twice(state: Path) -> None:
    over = ("--start", "2026-01-01", "--duration", "1h", "--uplift", "2")
    events(state, "add", "batch", *over)
    events(state, "add", "batch", *SALE)
    events(state, "remove", "batch")
    (left,) = read_events(state)
    assert left.uplift == 2.0, "the one to come is gone, the one that is over teaches"
    assert "batch is over, and forecasts learn from it" in refusal(state, "remove", "batch")
    assert events(state, "remove", "batch", "--past").exit_code == 0
    assert read_events(state) == ()


def test_one_occasion_of_many_is_removed_by_its_start(state: Path) -> None:
    for day in ("01", "08"):
        again = ("--start", f"2046-12-{day}", "--duration", "1h", "--uplift", "2")
        events(state, "add", "batch", *again)
    events(state, "remove", "batch", "--start", "2046-12-08T00:00Z")
    (left,) = read_events(state)
    assert "2046-12-01" in events(state, "list", "--json").stdout
    assert left.name == "batch"


@pytest.mark.parametrize("command", [("list",), ("remove", "x"), ("add", "x", *SALE)])
def test_a_broken_file_is_told_and_left_as_it_is(state: Path, command: tuple[str, ...]) -> None:
    state.mkdir(mode=0o700)
    (state / "events.json").write_text("broken")
    result = events(state, *command, "--json")
    assert result.exit_code == 1
    assert "not a file of events" in json.loads(result.stdout)["error"]
    assert (state / "events.json").read_text() == "broken"
