"""Announced events: how far above the usual each bin is, and what past occasions taught. Pure.

In: `DemandEvent`s, then bin after bin what was asked and what would have been usual. Out: a factor
for every stream and bin, by which values are divided before a forecaster sees them and its
forecasts multiplied again; expected values for streams that have no usual yet.
Never: learns of an event before it begins; believes one occasion as much as many.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from placement.catalog import DemandEvent
from prewarm.calendars import US, Calendar
from prewarm.series import Floats

FACTOR_MAX = 100.0
"""Events that overlap multiply, up to this and down to one over it."""
ANNOUNCED_SD = 0.7
"""In logs: an announced uplift may well be wrong by a factor of two."""
OCCASION_SD = 0.3
"""In logs: two occasions of the same event differ by about a third."""


def covered(calendar: Calendar, event: DemandEvent, bins: NDArray[np.int64]) -> Floats:
    """The share of each bin that an event takes, 0 to 1: its column in a regression."""
    start_us = calendar.start_us + bins * calendar.width_us
    end_us = np.minimum(start_us + calendar.width_us, event.end_us)
    common_us = end_us - np.maximum(start_us, event.start_us)
    return np.clip(common_us / calendar.width_us, 0.0, 1.0)


def merged(
    declared: Iterable[DemandEvent], announced: Iterable[DemandEvent]
) -> tuple[DemandEvent, ...]:
    """Those of the catalog and those announced by command; what both say counts once."""
    known = {occasion(event): event for event in (*announced, *declared)}
    return tuple(sorted(known.values(), key=lambda e: (e.start_us, e.name, e.models)))


def occasion(event: DemandEvent) -> tuple[str, int, frozenset[str]]:
    """What makes two announcements one event, whatever they say about it."""
    return event.name, event.start_us, frozenset(event.models)


class _Lessons:
    """How far occasions differed from their announcements, by the names of events.

    A mean of log ratios weighted by their precision: no ratio counts as known better than occasions
    differ, and the announcement counts as an occasion that held, with its own doubt. Sums are kept
    for each name, so that a daily event of a year costs no more than one of today.
    """

    def __init__(self, streams: int) -> None:
        self._zeros = np.zeros(streams)
        self._seen: dict[DemandEvent, tuple[Floats, Floats]] = {}
        self._taught: dict[DemandEvent, tuple[Floats, Floats]] = {}
        self._sums: dict[str, tuple[Floats, Floats]] = {}

    def of(self, events: Iterable[DemandEvent]) -> "_Lessons":
        """What these alone have taught."""
        kept = _Lessons(len(self._zeros))
        for event in events:
            if event in self._seen:
                kept.add(event, *self._seen[event])
        return kept

    def add(self, event: DemandEvent, asked: Floats, usual: Floats) -> None:
        """More of what was asked during an event, and what would have been usual. No NaN."""
        before_asked, before_usual = self._seen.get(event, (self._zeros, self._zeros))
        asked, usual = before_asked + asked, before_usual + usual
        expected = event.uplift * usual + 0.5
        weight = np.where(usual > 0, 1.0 / (OCCASION_SD**2 + 1.0 / expected), 0.0)
        weighted = weight * np.log((asked + 0.5) / expected)
        former_weight, former = self._taught.get(event, (self._zeros, self._zeros))
        weights, total = self._sums.get(event.name, (self._zeros, self._zeros))
        self._sums[event.name] = weights - former_weight + weight, total - former + weighted
        self._seen[event] = asked, usual
        self._taught[event] = weight, weighted

    def observed(self, event: DemandEvent) -> Floats:
        asked, usual = self._seen.get(event, (self._zeros, self._zeros))
        uplift: Floats = np.where(usual > 0, asked / np.where(usual > 0, usual, 1.0), np.nan)
        return uplift

    def correction(self, name: str) -> Floats:
        """To add to the logarithm of what is announced."""
        weights, total = self._sums.get(name, (self._zeros, self._zeros))
        correction: Floats = total / (weights + ANNOUNCED_SD**-2)
        return correction


class Uplift:
    """What the events mean for some models, a stream each. `S` streams."""

    def __init__(
        self, calendar: Calendar, models: Sequence[str], events: Iterable[DemandEvent]
    ) -> None:
        self._calendar = calendar
        self._models = tuple(models)
        self._events = tuple(sorted(set(events), key=lambda e: (e.start_us, e.name, e.end_us)))
        self._touched = [np.array([e.touches(m) for m in self._models]) for e in self._events]
        self._lessons = _Lessons(len(self._models))
        self._factors: dict[int, Floats] = {}
        self._usual = _fixed(np.ones(len(self._models)))
        self._nothing = _fixed(np.full(len(self._models), np.nan))
        self._edges, self._active = self._stretches()

    def announced(self, events: Iterable[DemandEvent]) -> "Uplift":
        """With other events, and what was learnt of those that are still among them."""
        renewed = Uplift(self._calendar, self._models, events)
        renewed._lessons = self._lessons.of(renewed._events)
        return renewed

    def factors(self, index: int) -> Floats:
        """By what a bin is above the usual; 1 where nothing is announced. Shape S, not yours."""
        stretch = bisect_right(self._edges, index) - 1
        if stretch < 0 or not self._active[stretch]:
            return self._usual
        if stretch not in self._factors:
            self._factors[stretch] = _fixed(self._product(stretch))
        return self._factors[stretch]

    def launches(self, index: int) -> Floats:
        """Requests that are announced for a bin, for streams without a usual; else NaN. Shape S."""
        expected = self._nothing
        for i in self._at(index):
            event = self._events[i]
            if event.expected_per_s:
                share = self._share(event, index)
                requests = event.expected_per_s * share * self._calendar.width_us / US
                expected = np.where(self._touched[i], np.nan_to_num(expected) + requests, expected)
        return expected

    def observe(self, index: int, values: Floats, usual: Floats) -> None:
        """A bin has passed: what was asked, and what was forecast of it but for the events."""
        whole = [i for i in self._at(index) if self._share(self._events[i], index) == 1.0]
        lifting = [i for i in whole if not self._events[i].expected_per_s]
        if not lifting:
            return
        known = np.isfinite(values) & np.isfinite(usual)
        raised = usual * self.factors(index)
        estimates = [self._estimate(self._events[i]) for i in lifting]
        for i, estimate in zip(lifting, estimates, strict=True):
            theirs = known & self._touched[i]
            without = raised / estimate  # events beside it have their own share
            self._lessons.add(
                self._events[i], np.where(theirs, values, 0.0), np.where(theirs, without, 0.0)
            )
        self._factors.clear()

    def observed(self, event: DemandEvent) -> Floats:
        """What the uplift of an event truly was; NaN where nothing was seen. Shape S."""
        return self._lessons.observed(event)

    def learnt(self, name: str) -> Floats:
        """The uplift to expect of the next event of this name; NaN of an unknown name. Shape S."""
        named = [event for event in self._events if event.name == name]
        return self._estimate(named[-1]) if named else self._nothing

    def _estimate(self, event: DemandEvent) -> Floats:
        """What is announced, corrected as occasions so far differed from their announcements."""
        estimate: Floats = event.uplift * np.exp(self._lessons.correction(event.name))
        return estimate

    def _product(self, stretch: int) -> Floats:
        product = np.ones(len(self._models))
        for i in self._active[stretch]:
            event = self._events[i]
            if not event.expected_per_s:
                rise = (self._estimate(event) - 1.0) * self._share(event, self._edges[stretch])
                product *= np.where(self._touched[i], 1.0 + rise, 1.0)
        return np.clip(product, 1.0 / FACTOR_MAX, FACTOR_MAX)

    def _at(self, index: int) -> Sequence[int]:
        stretch = bisect_right(self._edges, index) - 1
        return self._active[stretch] if stretch >= 0 else ()

    def _share(self, event: DemandEvent, index: int) -> float:
        return float(covered(self._calendar, event, np.array([index]))[0])

    def _stretches(self) -> tuple[list[int], list[list[int]]]:
        """Bins at which anything changes, and the events from there to the next.

        The first and the last bin of an event are stretches of their own: it may take part of them.
        """
        spans = [
            (self._calendar.index(event.start_us), self._calendar.index(event.end_us - 1))
            for event in self._events
        ]
        edges = sorted({e for first, last in spans for e in (first, first + 1, last, last + 1)})
        active: list[list[int]] = [[] for _ in edges]
        for i, (first, last) in enumerate(spans):
            for stretch in range(bisect_left(edges, first), bisect_left(edges, last + 1)):
                active[stretch].append(i)
        return edges, active


def _fixed(array: Floats) -> Floats:
    """Handed out many times over, so nobody may write into it."""
    array.setflags(write=False)
    return array
