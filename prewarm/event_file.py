"""Events announced by command: a file in the state directory. An edge.

In: the state directory. Out: the events in its file, read again only when it has changed; a way to
change them that others do not disturb. Never: half a file, one that others may read, an exception
out of `Announced.events`: whoever forecasts goes on with what was announced before.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from placement.catalog import DemandEvent, Frozen
from placement.private_file import write_private
from prewarm.calendars import DAY_US

FILE = "events.json"
LOCK = "events.lock"
KEPT_US = 400 * DAY_US
"""As long as the history is kept: who fits on it needs to know what was announced."""
LOCK_TRIES = 100
LOCK_STEP_WALL_S = 0.05


class EventFileError(Exception):
    """The file cannot be read or changed; the text says why and what to do."""


class _Kept(Frozen, frozen=True, kw_only=True):
    events: tuple[DemandEvent, ...] = ()


def read_events(folder: Path) -> tuple[DemandEvent, ...]:
    """What is announced in a state directory. Raises `EventFileError`."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept).events
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise EventFileError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise EventFileError(
            f"{path}: not a file of events ({error}): mend it, or remove it and announce again"
        ) from None


Change = Callable[[tuple[DemandEvent, ...]], tuple[DemandEvent, ...]]


def change_events(folder: Path, change: Change, now_us: int) -> tuple[DemandEvent, ...]:
    """Events as `change` makes them of those that are there, nobody else changing them meanwhile.

    Raises `EventFileError`, and whatever `change` raises; then all stays as it was.
    """
    with _locked(folder):
        kept = [event for event in change(read_events(folder)) if event.end_us > now_us - KEPT_US]
        events = tuple(sorted(kept, key=lambda event: (event.start_us, event.name)))
        write_private(folder / FILE, msgspec.json.encode(_Kept(events=events)))
    return events


class Announced:
    """The file as a running gateway looks at it, again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[int, ...] = ()
        self._events: tuple[DemandEvent, ...] = ()
        self.problem = ""
        """Why the newest file could not be read; empty when all is well."""

    def events(self) -> tuple[DemandEvent, ...]:
        """What is announced now; what was announced before where the file cannot be read."""
        try:
            stat = (self._folder / FILE).stat()
            stamp: tuple[int, ...] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            stamp = ()
        if stamp != self._stamp:
            self._stamp, self.problem = stamp, ""
            try:
                self._events = read_events(self._folder)
            except EventFileError as error:
                self.problem = str(error)
        return self._events


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time. The system lets go of the lock however its owner ends."""
    with (folder / LOCK).open("a+") as file:
        for _ in range(LOCK_TRIES):
            if _taken(file.fileno()):
                break
            time.sleep(LOCK_STEP_WALL_S)
        else:
            raise EventFileError(
                f"{folder / LOCK}: another `warmtide events` has held it for "
                f"{LOCK_TRIES * LOCK_STEP_WALL_S:g} s: end that one, or try again"
            )
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
