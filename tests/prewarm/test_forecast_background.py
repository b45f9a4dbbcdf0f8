"""The process that fits: what it may take, what becomes of its bad ends, that it never stays."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File

import numpy as np
import psutil
import pytest

from prewarm.calendars import DAY_US, Calendar
from prewarm.forecast import Setting
from prewarm.forecasters.background import Background, Caps, InPlace
from prewarm.forecasters.paths import FitRequest, PathForecaster
from prewarm.forecasters.refits import Failed, Fitted, refit
from prewarm.past import Past
from prewarm.series import Floats
from tests.prewarm import strange_fits
from tests.prewarm.strange_fits import Kind

STRANGE = "tests.prewarm.strange_fits:FITS"
HOURS = Calendar(start_us=20_000 * DAY_US, width_us=DAY_US // 24)
ROOT = File(__file__).parents[2]
pytestmark = pytest.mark.integration


@pytest.fixture
def background() -> Iterator[Callable[..., Background]]:
    opened: list[Background] = []

    def background(fits: str = STRANGE, **caps: float) -> Background:
        opened.append(Background(fits, Caps(**caps)))  # type: ignore[arg-type]
        return opened[-1]

    yield background
    for one in opened:
        one.close()


def asked(*kinds: Kind, name: str = "strange") -> FitRequest:
    return of(name, np.array([kinds, kinds], np.float64))


def of(name: str, values: Floats, ahead: int = 4) -> FitRequest:
    return FitRequest(
        forecaster=name,
        calendar=HOURS,
        streams=tuple(f"s{i}" for i in range(values.shape[1])),
        first=0,
        values=values,
        ahead=ahead,
    )


def done(one: Background) -> Fitted | Failed:
    """The next that comes of it."""
    while not (found := one.poll()):
        time.sleep(0.01)
    assert len(found) == 1
    return found[0]


def fitted(one: Background) -> Fitted:
    found = done(one)
    assert isinstance(found, Fitted), found
    return found


def failed(one: Background) -> Failed:
    found = done(one)
    assert isinstance(found, Failed), found
    return found


def running(one: Background) -> int:
    assert one.pid is not None
    return one.pid


def gone(pid: int) -> bool:
    """Within some seconds; a zombie is gone, and its parent's to bury."""
    for _ in range(1_000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_rows_come_back_as_they_were_fitted(background: Callable[..., Background]) -> None:
    one = background()
    one.submit(asked(Kind.WELL, Kind.WELL))
    path = fitted(one).path
    assert (path.forecaster, path.first, path.notes) == ("strange", 2, ("", ""))
    assert path.medians.tolist() == [[7.0] * 4] * 2


def test_it_gives_way_runs_on_one_core_and_in_a_session_of_its_own(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.TELLS))
    pid, priority, cores, session = fitted(one).path.medians[0]
    assert pid != os.getpid()
    assert priority == 19
    assert cores < 1.3
    assert session == pid, "Ctrl-C at our terminal is not meant for it"


def test_a_fit_that_eats_memory_fails_alone_and_the_process_goes_on(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.TELLS, Kind.EATS, Kind.TELLS, name="careful"))
    path = fitted(one).path
    assert path.notes == ("", "too large", "")
    assert np.isnan(path.medians[1]).all()
    assert path.medians[0, 0] == path.medians[2, 0], "all in the same process"


def test_a_fit_that_does_not_stand_the_lack_of_memory_costs_its_stream_alone(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.WELL, Kind.EATS, Kind.WELL))
    path = fitted(one).path
    assert path.medians[[0, 2]].tolist() == [[7.0] * 4] * 2
    assert "MemoryError" in path.notes[1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.CRASHES, "its process ended with code 3"),
        (Kind.KILLED, "its process ended with signal SIGKILL; is there memory enough?"),
        (Kind.RAISES, "its process ended with code 1 (ValueError: the fit's own words)"),
    ],
)
def test_a_process_that_ends_is_told_in_words_and_the_next_stream_has_a_new_one(
    kind: Kind, words: str, background: Callable[..., Background]
) -> None:
    one = background()
    one.submit(asked(kind, Kind.WELL))
    path = fitted(one).path
    assert path.notes == (words, "")
    assert np.isnan(path.medians[0]).all()
    assert path.medians[1].tolist() == [7.0] * 4


def test_a_fit_that_takes_too_long_is_ended_and_the_next_stream_fitted(
    background: Callable[..., Background],
) -> None:
    one = background(stream_s=5.0)
    one.submit(asked(Kind.HANGS, Kind.WELL))
    path = fitted(one).path
    assert path.notes == ("its fit took more than 5 s and was ended", "")


def test_after_three_losses_in_a_row_the_rest_is_not_tried(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.WELL, Kind.CRASHES, Kind.CRASHES, Kind.CRASHES, Kind.HANGS, Kind.HANGS))
    assert failed(one) == Failed(forecaster="strange", why="its process ended with code 3")


def test_a_missing_library_is_named_once_and_the_next_request_is_fitted(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.WELL, Kind.WELL, name="missing"))
    one.submit(asked(Kind.WELL))
    assert failed(one).why == "orakel is not installed: pip install orakel"
    assert fitted(one).path.forecaster == "strange"


def test_a_table_of_fits_that_cannot_be_loaded_is_a_failure_in_words(
    background: Callable[..., Background],
) -> None:
    one = background("nowhere.to_be:FOUND")
    one.submit(asked(Kind.WELL))
    assert "No module named 'nowhere'" in failed(one).why


def test_a_request_larger_than_a_pipe_goes_through(background: Callable[..., Background]) -> None:
    one = background()
    one.submit(of("strange", np.zeros((1_000_000, 1))))
    assert fitted(one).path.first == 1_000_000


def test_asking_never_waits_for_a_fit(background: Callable[..., Background]) -> None:
    one = background()
    one.submit(asked(Kind.HANGS))
    assert [one.poll() for _ in range(100)] == [[]] * 100
    assert one.pid is not None


def test_the_process_is_there_only_while_there_is_something_to_fit(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.WELL))
    pid = running(one)
    fitted(one)
    assert one.pid is None
    assert gone(pid)


def test_closed_in_the_middle_of_a_fit_it_ends_with_what_it_started(
    background: Callable[..., Background],
) -> None:
    one = background()
    one.submit(asked(Kind.STARTS_A_PROGRAM))
    pid = running(one)
    program = child_of(pid)
    one.close()
    assert gone(pid)
    assert gone(program)


def child_of(pid: int) -> int:
    while not (children := psutil.Process(pid).children()):
        time.sleep(0.01)
    return children[0].pid


PARENT = """
    import sys, time
    import numpy as np
    from prewarm.forecasters.background import Background
    from tests.prewarm.test_forecast_background import STRANGE, asked
    from tests.prewarm.strange_fits import Kind
    one = Background(STRANGE)
    one.submit(asked(Kind.STARTS_A_PROGRAM))
    print(one.pid, flush=True)
    time.sleep(60)
"""


def test_killed_we_leave_no_process_and_no_file(tmp_path: File) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent.stdout as told:
        pid = int(told.readline())
    program = child_of(pid)
    assert list(tmp_path.glob("warmtide-fit-*"))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(pid)
    assert gone(program)
    assert not list(tmp_path.glob("warmtide-fit-*"))


def seen(days: int) -> Past:
    hours = np.arange(24 * days)
    counts = np.random.default_rng(0).poisson(300 - 200 * np.cos(2 * np.pi * hours / 24))
    past = Past(HOURS, 1)
    for count in counts:
        past.add(np.array([float(count)]))
    return past


@pytest.mark.parametrize("name", ["auto_ets", "mstl", "prophet"])
def test_a_library_fitted_beside_us_says_what_it_says_in_place(
    name: str, background: Callable[..., Background]
) -> None:
    past = seen(days=14)
    setting = Setting(calendar=HOURS, streams=("s",), horizons=(1, 4))
    ours, theirs = (PathForecaster(setting, name) for _ in range(2))
    assert len(refit({name: ours}, past, InPlace())) == 1
    beside = background("prewarm.forecasters.libraries:HEAVY")
    while not refit({name: theirs}, past, beside):
        time.sleep(0.01)
    assert theirs.trouble == ""
    assert theirs.points(past) == pytest.approx(ours.points(past), rel=1e-3)


def test_a_failed_fit_is_kept_with_its_words_and_asked_for_again_later(
    background: Callable[..., Background],
) -> None:
    past = seen(days=14)
    one = PathForecaster(Setting(calendar=HOURS, streams=("s",), horizons=(1,)), "missing")
    beside = background()
    while not refit({"missing": one}, past, beside):
        time.sleep(0.01)
    assert one.trouble == "orakel is not installed: pip install orakel"
    assert refit({"missing": one}, past, beside) == []
    assert beside.pid is None, "an hour is waited first"
    past.add(np.array([1.0]))
    refit({"missing": one}, past, beside)
    assert running(beside)


def test_in_place_a_missing_library_is_a_failure_too() -> None:
    fits = InPlace(strange_fits.FITS)
    fits.submit(asked(Kind.WELL, name="missing"))
    assert fits.poll() == [
        Failed(forecaster="missing", why="orakel is not installed: pip install orakel")
    ]
    assert fits.poll() == []
