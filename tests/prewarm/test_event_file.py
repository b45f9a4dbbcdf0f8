"""The file of announced events: whole, private, changed by one at a time, read when it changed."""

import fcntl
import stat
import threading
from pathlib import Path

import pytest

from placement.catalog import DemandEvent
from prewarm import event_file
from prewarm.calendars import DAY_US, US
from prewarm.event_file import Announced, EventFileError, change_events, read_events
from prewarm.events import merged

NOW_US = 1000 * DAY_US


def event(name: str, start_us: int = NOW_US, uplift: float = 2.0) -> DemandEvent:
    end_us = start_us + 3600 * US
    return DemandEvent(name=name, start_us=start_us, end_us=end_us, uplift=uplift)


def announce(folder: Path, *events: DemandEvent) -> None:
    change_events(folder, lambda there: (*there, *events), NOW_US)


def test_without_a_file_nothing_is_announced(tmp_path: Path) -> None:
    assert read_events(tmp_path) == ()
    assert Announced(tmp_path).events() == ()


def test_what_was_announced_is_read_back_oldest_first(tmp_path: Path) -> None:
    later = event("later", NOW_US + DAY_US)
    announce(tmp_path, later)
    announce(tmp_path, event("now"))
    assert read_events(tmp_path) == (event("now"), later)


def test_others_may_not_read_it(tmp_path: Path) -> None:
    announce(tmp_path, event("secret-launch"))
    assert stat.S_IMODE((tmp_path / event_file.FILE).stat().st_mode) == 0o600


def test_what_is_over_stays_as_long_as_the_history(tmp_path: Path) -> None:
    last_year, long_ago = NOW_US - 399 * DAY_US, NOW_US - 401 * DAY_US
    announce(tmp_path, event("kept", last_year), event("dropped", long_ago))
    assert [e.name for e in read_events(tmp_path)] == ["kept"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    announce(tmp_path, event("a"))

    def refuses(_: tuple[DemandEvent, ...]) -> tuple[DemandEvent, ...]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        change_events(tmp_path, refuses, NOW_US)
    announce(tmp_path, event("b"))
    assert [e.name for e in read_events(tmp_path)] == ["a", "b"]


def test_two_dozen_who_announce_at_once_lose_no_event(tmp_path: Path) -> None:
    names = [f"e{i:02}" for i in range(24)]
    threads = [threading.Thread(target=announce, args=(tmp_path, event(n))) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.name for e in read_events(tmp_path)] == names


def test_who_holds_it_for_too_long_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "LOCK_TRIES", 2)
    with (tmp_path / event_file.LOCK).open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EventFileError, match=r"events\.lock: another `warmtide events`"):
            announce(tmp_path, event("a"))
    announce(tmp_path, event("a"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"events": [{"name": "x"}]}', '{"colour": 1}'])
def test_a_file_that_is_none_is_told_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / event_file.FILE).write_text(text)
    with pytest.raises(EventFileError, match=r"events\.json: not a file of events .*mend it"):
        read_events(tmp_path)


def test_a_gateway_sees_a_change_and_goes_on_when_the_file_breaks(tmp_path: Path) -> None:
    announced = Announced(tmp_path)
    announce(tmp_path, event("a"))
    assert [e.name for e in announced.events()] == ["a"]
    announce(tmp_path, event("b"))
    assert [e.name for e in announced.events()] == ["a", "b"]
    (tmp_path / event_file.FILE).write_text("broken")
    assert [e.name for e in announced.events()] == ["a", "b"]
    assert "not a file of events" in announced.problem
    (tmp_path / event_file.FILE).unlink()
    assert announced.events() == ()
    assert announced.problem == ""


def test_what_the_catalog_says_of_an_event_goes_before_what_was_announced() -> None:
    here, there, other = event("a", uplift=2.0), event("a", uplift=5.0), event("b")
    assert merged([there], [here, other]) == (there, other)
