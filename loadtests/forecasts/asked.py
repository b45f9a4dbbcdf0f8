"""What a back-test is asked for, from words to bins. Pure.

In: options as they were typed, a panel. Out: horizons, streams, the first bin that is scored, or
an `AskedError` that says what there is. Never: rounds a horizon to a bin it does not name.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from loadtests.errors import AskedError, no_such
from loadtests.spans import span_us
from placement.catalog_units import human_time
from prewarm.calendars import DAY_US, US
from prewarm.series import Panel

USUAL = ("10m", "20m", "60m", "4h")
SHORT = ("10s", "30s", "1m", "2m", "4m")
"""Of request traces, which last an hour."""
SHORT_BINS_US = 30 * US
FEW_BINS = (1, 2, 6)
HORIZON_MAX_US = 7 * DAY_US
HORIZON_BINS_MAX = 100_000
"""What is said of each bin is remembered until it has come."""
WARM_UP_US = 8 * DAY_US
"""A week has come round, and a day to learn from it."""


class Horizon(NamedTuple):
    """As the user wrote it, and which bin after the last one observed it means."""

    word: str
    bins: int


def horizons_of(text: str, width_us: int) -> tuple[Horizon, ...]:
    """Ascending. Without a word, those of the usual ones that are whole bins here."""
    if not text.strip():
        return _usual(width_us)
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = sorted((_horizon(word, width_us) for word in words), key=lambda one: one.bins)
    for one, other in pairwise(found):
        if one.bins == other.bins:
            raise AskedError(f"--horizons: {one.word} and {other.word} are the same; give one")
    if not found:
        raise AskedError("--horizons: name one at least, as in 10m,60m")
    return tuple(found)


def _usual(width_us: int) -> tuple[Horizon, ...]:
    words = SHORT if width_us <= SHORT_BINS_US else USUAL
    spans = {word: span_us(word, "--horizons") for word in words}
    found = tuple(
        Horizon(word, us // width_us) for word, us in spans.items() if us and us % width_us == 0
    )
    return found or tuple(Horizon(f"{n * width_us // US}s", n) for n in FEW_BINS)


def _horizon(word: str, width_us: int) -> Horizon:
    us = span_us(word, "--horizons")
    if us % width_us or not us:
        lower = max(us // width_us, 1) * width_us
        raise AskedError(
            f"--horizons {word}: the bins are {_told(width_us)} wide, and a horizon is the k-th "
            f"bin after the last one observed; write a multiple, as {_told(lower)} or "
            f"{_told(lower + width_us)}"
        )
    if us > HORIZON_MAX_US:
        raise AskedError(f"--horizons {word}: too far; {_told(HORIZON_MAX_US)} at most")
    if us > HORIZON_BINS_MAX * width_us:
        raise AskedError(
            f"--horizons {word}: too far for bins of {human_time(width_us)}; "
            f"{HORIZON_BINS_MAX} bins at most, or wider ones by --bin"
        )
    return Horizon(word, us // width_us)


def _told(us: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if us % (size * US) == 0:
            return f"{us // (size * US)}{unit}"
    return f"{us / US:g}s"


def first_scored(text: str, panel: Panel) -> int:
    """In bins, the number of all bins where none is left to score. Without a word: after eight days
    where that leaves a day, else after a third."""
    width_us = panel.calendar.width_us
    span_of_all_us = len(panel) * width_us
    if not text.strip():
        enough = span_of_all_us >= WARM_UP_US + DAY_US
        return WARM_UP_US // width_us if enough else len(panel) // 3
    asked_us = span_us(text, "--score-from")
    return min(-(-asked_us // width_us), len(panel))


def why_unscored(text: str, first: int, panel: Panel) -> tuple[str, ...]:
    """A note for every stream where nothing is left to score."""
    if first < len(panel):
        return ()
    ends = _told(len(panel) * panel.calendar.width_us)
    return (f"nothing is left to score from {text.strip()} on, for the data ends after {ends}",)


def chosen_streams(panel: Panel, names: str, busiest: int | None) -> Panel:
    """Those that are named, or those that asked most, in the file's order; else all."""
    if names.strip() and busiest is not None:
        raise AskedError("give --streams or --busiest, not both")
    if names.strip():
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        return _taken(panel, [_place(name, panel.streams) for name in dict.fromkeys(wanted)])
    if busiest is not None and busiest < len(panel.streams):
        totals = np.nansum(panel.values, axis=0)
        order = np.argsort(-totals, kind="stable")[:busiest]
        return _taken(panel, sorted(order.tolist()))
    return panel


def _place(name: str, streams: Sequence[str]) -> int:
    if name not in streams:
        raise AskedError(f"--streams: {no_such('stream', name, streams)}")
    return streams.index(name)


def _taken(panel: Panel, places: Sequence[int]) -> Panel:
    return Panel(
        calendar=panel.calendar,
        streams=tuple(panel.streams[at] for at in places),
        values=panel.values[:, list(places)],
        whole=panel.whole,
    )


def names_of(text: str, option: str, known: Sequence[str]) -> tuple[str, ...]:
    """Forecasters that a list names, each of them there."""
    wanted = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in wanted:
        if name not in known:
            raise AskedError(f"{option}: {no_such('forecaster', name, known)}")
    return tuple(wanted)
