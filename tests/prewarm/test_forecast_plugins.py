"""Forecasters of other packages: found by name, told apart, and never a danger to the rest."""

from collections.abc import Iterator
from pathlib import Path as File

import numpy as np
import pytest

from prewarm.calendars import DAY_US, Calendar
from prewarm.forecast import Setting
from prewarm.forecasters.guarded import RAISES_MAX, Guarded, GuardedPoints
from prewarm.forecasters.libraries import HEAVY
from prewarm.forecasters.paths import PathForecaster
from prewarm.forecasters.plugins import (
    UnknownForecasterError,
    forecaster_named,
    forecaster_names,
)
from prewarm.forecasters.registry import POINTS
from prewarm.past import Past
from prewarm.series import Floats, Panel
from tests.prewarm.strangers import installed

SETTING = Setting(
    calendar=Calendar(start_us=0, width_us=DAY_US // 144),
    streams=("a", "b"),
    horizons=(1, 6),
    levels=(0.1, 0.5, 0.9),
)
PACKAGE = """
import numpy as np

class Twice:
    def __init__(self, setting):
        self.horizons = len(setting.horizons)
    def update(self, past):
        pass
    def points(self, past):
        return np.repeat(2 * past.back(0)[:, None], self.horizons, axis=1)

class Bands:
    def __init__(self, setting):
        self.shape = len(setting.streams), len(setting.horizons), 1
    def fit(self, past):
        pass
    def update(self, values):
        pass
    def predict(self):
        return np.tile(np.array([1.0, 2.0, 3.0]), self.shape)

class Refuses:
    def __init__(self, setting):
        raise ValueError("too many streams")

def nothing(setting):
    return object()
"""
ENTRIES = """
[warmtide.forecasters]
twice = oracle:Twice
bands = oracle:Bands
refuses = oracle:Refuses
nothing = oracle:nothing
lost = oracle_of_delphi:Pythia
day = oracle:Twice
"""


@pytest.fixture
def _oracle(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of somebody else's, installed."""
    with installed(tmp_path, monkeypatch, "oracle", PACKAGE, ENTRIES):
        yield


def seen(*values: float) -> Past:
    past = Past(SETTING.calendar, 2)
    for value in values:
        past.add(np.full(2, value))
    return past


@pytest.mark.usefixtures("_oracle")
def test_the_built_in_come_first_and_keep_their_names() -> None:
    names = forecaster_names()
    ours = [*POINTS, *HEAVY]
    assert names == [*ours, "bands", "lost", "nothing", "refuses", "twice"]
    assert forecaster_named("day") is POINTS["day"]


def test_those_of_libraries_are_read_from_paths_that_others_fit() -> None:
    for name in HEAVY:
        made = forecaster_named(name)(SETTING)
        assert isinstance(made, PathForecaster)
        assert made.name == name


@pytest.mark.usefixtures("_oracle")
def test_foreign_ones_are_told_apart_by_what_they_can_say() -> None:
    twice, bands = (forecaster_named(name)(SETTING) for name in ("twice", "bands"))
    assert isinstance(twice, GuardedPoints)
    assert twice.points(seen(4.0)).tolist() == [[8.0, 8.0]] * 2
    assert isinstance(bands, Guarded)
    assert bands.predict().tolist() == [[[1.0, 2.0, 3.0]] * 2] * 2


@pytest.mark.usefixtures("_oracle")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lost", "'lost' cannot be loaded (ModuleNotFoundError: No module named 'oracle_of_del"),
        ("refuses", "'refuses' cannot be made (ValueError: too many streams): mend or remove the"),
        ("nothing", "'nothing' of oracle makes a object, which has neither 'points' nor 'predict'"),
        ("delphi", "no forecaster is called 'delphi'; there are last_value, "),
    ],
)
def test_one_that_is_not_to_be_had_is_named_with_words(name: str, words: str) -> None:
    with pytest.raises(UnknownForecasterError) as refused:
        forecaster_named(name)(SETTING)
    assert words in str(refused.value)


class Moody:
    """Says what it was told to, or raises it."""

    def __init__(self, *moods: object) -> None:
        self._moods = list(moods)

    def _mood(self) -> Floats:
        mood = self._moods.pop(0)
        if isinstance(mood, Exception):
            raise mood
        return mood  # type: ignore[return-value]

    def points(self, _past: Past) -> Floats:
        return self._mood()

    def predict(self) -> Floats:
        return self._mood()

    def fit(self, _past: Panel) -> None:
        raise NotImplementedError

    def update(self, _told: object) -> None:
        """Takes anything in."""


class Deaf(Moody):
    def update(self, _told: object) -> None:
        self._mood()


GOOD = np.array([[1.0, 2.0], [3.0, 4.0]])
BANDS = np.array([[[1.0, 2.0, 3.0]] * 2] * 2)


def points_of(*moods: object) -> GuardedPoints:
    return GuardedPoints("moody", Moody(*moods), SETTING)


def test_one_that_raises_is_silent_is_counted_and_may_speak_again() -> None:
    one = points_of(ValueError("a bad day"), GOOD)
    assert np.isnan(one.points(seen(1.0))).all()
    assert (one.raised, one.trouble) == (1, "ValueError: a bad day")
    assert (one.points(seen(1.0)) == GOOD).all()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (GOOD[0], "answers in shape (2,), where (2, 2) is asked for"),
        (None, "answers in shape (), where (2, 2) is asked for"),
        ("soon", "ValueError: could not convert string to float: 'soon'"),
        ([[1.0, 2.0], [3.0]], "ValueError: setting an array element with a sequence."),
    ],
)
def test_an_answer_of_another_shape_is_none(answer: object, words: str) -> None:
    one = points_of(answer)
    assert np.isnan(one.points(seen(1.0))).all()
    assert one.raised == 1
    assert one.trouble.startswith(words)


def test_negative_and_infinite_points_are_silenced_one_by_one() -> None:
    one = points_of(np.array([[1.0, -0.5], [np.inf, np.nan]]), np.array([[1.0, 1e300], [2.0, 3.0]]))
    said = one.points(seen(1.0))
    assert said[0, 0] == 1.0
    assert np.isnan(said).sum() == 3
    assert (one.raised, one.unsound) == (0, 2), "a NaN is a right answer"
    assert np.isnan(one.points(seen(1.0))).tolist() == [[False, True], [False, False]]
    assert one.trouble == "says negative or infinite numbers"


@pytest.mark.parametrize(
    ("quantiles", "words"),
    [
        ([3.0, 2.0, 4.0], "says quantiles that cross"),
        ([-1.0, 2.0, 4.0], "says negative or infinite numbers"),
        ([1.0, 2.0, np.inf], "says negative or infinite numbers"),
        ([1.0, np.nan, 4.0], "says some quantiles and leaves out others"),
    ],
)
def test_bad_quantiles_silence_their_stream_and_horizon_alone(
    quantiles: list[float], words: str
) -> None:
    answer = BANDS.copy()
    answer[1, 0] = quantiles
    one = Guarded("moody", Moody(answer), SETTING)
    said = one.predict()
    assert np.isnan(said[1, 0]).all()
    said[1, 0] = BANDS[1, 0]
    assert (said == BANDS).all()
    assert (one.unsound, one.trouble) == (1, words)


def test_one_that_missed_a_bin_says_nothing_in_it() -> None:
    one = GuardedPoints("deaf", Deaf(KeyError("past"), None, GOOD), SETTING)
    one.update(seen(1.0))
    assert np.isnan(one.points(seen(1.0))).all()
    one.update(seen(1.0))
    assert (one.points(seen(1.0)) == GOOD).all()


def test_a_fit_that_raises_is_let_in_no_further() -> None:
    one = Guarded("moody", Moody(), SETTING)
    one.fit(Panel(calendar=SETTING.calendar, streams=SETTING.streams, values=np.ones((3, 2))))
    assert one.trouble.startswith("NotImplementedError")
    assert np.isnan(one.predict()).all()


def test_one_that_only_ever_raises_is_asked_no_more() -> None:
    one = points_of(*[ValueError("again")] * RAISES_MAX, GOOD)
    for _ in range(RAISES_MAX + 10):
        assert np.isnan(one.points(seen(1.0))).all()
    assert one.raised == RAISES_MAX
    assert one.silenced


def test_what_was_said_does_not_change_under_our_hands() -> None:
    answer = GOOD.copy()
    said = points_of(answer).points(seen(1.0))
    answer[:] = -1.0
    assert (said == GOOD).all()


class Scribbles(Moody):
    def update(self, _told: object) -> None:
        assert isinstance(_told, np.ndarray)
        _told[:] = -1.0


def test_what_it_was_told_does_not_change_under_its_hands() -> None:
    values = np.ones(2)
    Guarded("scribbles", Scribbles(), SETTING).update(values)
    assert (values == 1.0).all()
