"""A forecaster of somebody else's, let in: whatever it does, the controller goes on. Pure.

In: what it is told, what it says. Out: the same numbers where they are sound; NaN, which is
"nothing to say", where it raised, in a bin that it failed to take in, where the shape is wrong, a
number negative or infinite, or where quantiles cross. All of it is counted, and the last trouble
kept in words for the scoreboard.
Never: lets an exception out, hands out the array that it might still write into.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from prewarm.forecast import Forecaster, PointForecaster, Setting
from prewarm.past import Past
from prewarm.series import Bools, Floats, Panel

SAID_MAX = 1e18
"""A thousand times what counts as a value; what is larger is as good as infinite."""
RAISES_MAX = 100
"""In a row. One that fails so often is asked no more: it only costs time."""


class _Guard:
    """What was wrong with one forecaster so far."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.raised = 0
        """How often it raised or gave an answer of the wrong shape."""
        self.unsound = 0
        """How many streams and horizons of its answers were silenced."""
        self.trouble = ""
        """The last of all that, in words; empty where there was none."""
        self._shape = shape
        self._in_a_row = 0
        self._missed = False
        """The last that it was told; what it says now is of another bin."""

    @property
    def silenced(self) -> bool:
        return self._in_a_row >= RAISES_MAX

    def _told(self, call: Callable[[], None]) -> None:
        if self.silenced:
            return
        self._missed = True
        try:
            call()
        except Exception as error:  # another package's code may raise anything
            self._raised(error)
        else:
            self._missed = False

    def _said(self, call: Callable[[], Any]) -> Floats:
        if self.silenced or self._missed:
            return self._nothing()
        try:
            said = np.array(call(), np.float64)
        except Exception as error:
            self._raised(error)
            return self._nothing()
        if said.shape != self._shape:
            self._note(f"answers in shape {said.shape}, where {self._shape} is asked for")
            return self._nothing()
        self._in_a_row = 0
        return said

    def _silence(self, said: Floats, bad: Any, what: str) -> None:
        if bad.any():
            self.unsound += int(bad.sum())
            self.trouble = what
            said[bad] = np.nan

    def _raised(self, error: Exception) -> None:
        self._note(f"{type(error).__name__}: {error}")

    def _note(self, trouble: str) -> None:
        self.raised += 1
        self._in_a_row += 1
        self.trouble = trouble

    def _nothing(self) -> Floats:
        return np.full(self._shape, np.nan)


class GuardedPoints(_Guard):
    """Around a `PointForecaster`."""

    def __init__(self, name: str, inner: PointForecaster, setting: Setting) -> None:
        super().__init__(name, (len(setting.streams), len(setting.horizons)))
        self._inner = inner

    def update(self, past: Past) -> None:
        self._told(lambda: self._inner.update(past))

    def points(self, past: Past) -> Floats:
        said = self._said(lambda: self._inner.points(past))
        self._silence(said, _wild(said), "says negative or infinite numbers")
        return said


class Guarded(_Guard):
    """Around a `Forecaster`."""

    def __init__(self, name: str, inner: Forecaster, setting: Setting) -> None:
        shape = (len(setting.streams), len(setting.horizons), len(setting.levels))
        super().__init__(name, shape)
        self._inner = inner

    def fit(self, past: Panel) -> None:
        self._told(lambda: self._inner.fit(past))

    def update(self, values: Floats) -> None:
        own = values.copy()
        self._told(lambda: self._inner.update(own))

    def predict(self) -> Floats:
        said = self._said(self._inner.predict)
        self._silence(said, _wild(said).any(axis=2), "says negative or infinite numbers")
        self._silence(said, (np.diff(said, axis=2) < 0).any(axis=2), "says quantiles that cross")
        partly = np.isnan(said).any(axis=2) & ~np.isnan(said).all(axis=2)
        self._silence(said, partly, "says some quantiles and leaves out others")
        return said


def _wild(said: Floats) -> Bools:
    found: Bools = (said < 0) | (said > SAID_MAX)
    return found
