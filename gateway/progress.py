"""What a command is busy with, while it takes longer than a moment. An edge.

In: steps as they begin, in words. Out, on stderr alone: a live line with a spinner and the time
where that is a terminal; elsewhere a line for each step that takes over a second, and how long it
took. Never: writes on stdout, guesses how far a step has come.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from placement.clock import monotonic_us

PATIENCE_WALL_S = 1.0


class Steps(Protocol):
    """Where a command says what it does. Calls are cheap; the same words again are no news."""

    def step(self, told: str, *, name: str = "") -> None:
        """The next step, or other words for the present one where `name` is the same."""

    def rest(self) -> None:
        """Nothing to wait for just now: somebody else may write on the terminal."""


class Silent:
    """For a command that shows something live already."""

    def step(self, told: str, *, name: str = "") -> None:
        pass

    def rest(self) -> None:
        pass


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """For as long as the command waits; what was shown live is wiped away at the end."""
    shown = _Live() if _can_show() else _Plain()
    try:
        yield shown
    finally:
        shown.rest()


def _can_show() -> bool:
    """A terminal that can move its cursor. Whether there is colour, rich reads from NO_COLOR."""
    from rich.console import Console

    return sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


class _Live:
    """One line, rewritten in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        self._console = Console(stderr=True)
        self._make = Progress
        self._bar: Progress | None = None
        self._name = ""

    def step(self, told: str, *, name: str = "") -> None:
        if self._bar is None:
            # Stdout is the command's own: a document in a pipe must not be drawn on the terminal.
            self._bar = self._make(
                *self._columns, console=self._console, transient=True, redirect_stdout=False
            )
            self._bar.add_task(told, total=None)
            self._bar.start()
        elif (name or told) != self._name:
            self._bar.reset(self._bar.task_ids[0], total=None, description=told)
        else:
            self._bar.update(self._bar.task_ids[0], description=told)
        self._name = name or told

    def rest(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Plain:
    """Lines for a log or a pipe, from a thread: whoever waits may be blocked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = ""
        self._told = ""
        self._said = False
        self._began_us = 0
        self._timer: threading.Timer | None = None

    def step(self, told: str, *, name: str = "") -> None:
        with self._lock:
            if self._timer is not None and (name or told) == self._name:
                self._told = told
                return
            self._end()
            self._name, self._told = name or told, told
            self._began_us = monotonic_us()
            self._timer = threading.Timer(PATIENCE_WALL_S, self._say, (self._name,))
            self._timer.daemon = True
            self._timer.start()

    def rest(self) -> None:
        with self._lock:
            self._end()

    def _say(self, name: str) -> None:
        with self._lock:
            if self._timer is not None and name == self._name:
                self._said = True
                _line(f"{self._told} ...")

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._said:
            self._said = False
            _line(f"{self._told}: took {(monotonic_us() - self._began_us) / 1e6:.1f} s")


def _line(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more
        sys.stderr.write(f"warmtide: {text}\n")
        sys.stderr.flush()
