"""Demand drawn from expected counts: a slice to run and the days before it. Pure and seeded.

In: expected requests per bin and model, changes, a seed. Out: `Requests`, streams of which are the
models. A bin's requests depend on the seed and on the bin alone, so however it is cut into chunks,
and whoever asks for the past, gets the same requests.
Never: reads a trace, holds more than a chunk of a slice unless gaps of all of it are drawn anew.

**Arrivals.** A bin gets the whole part of its expected count, and one more with the probability of
the rest; their times come from `draws.renewal_within`, a Gamma renewal process of CV 2 closed into
a ring, as `arrivals` draws them. With a `cv` of its own, the slice's merged stream gets gaps of
that CV instead, its total length kept: burstiness as the WarmServe paper varies it, which also
levels the rate within the slice. The past is never redrawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from loadtests.draws import Floats, Ints, renewal_gaps, renewal_within, stream
from prewarm.traces.records import DAY_US, US, Counts, Requests

CHUNK_REQUESTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From `start_us` to `stop_us` of the slice, column `model` is asked `times` as much, plus."""

    model: int
    start_us: int
    stop_us: int
    times: float
    plus_rps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthTable:
    """Rows to draw from, each a prompt with its answer, within the scenario's bounds."""

    prompt_tokens: Ints
    output_tokens: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """Counts without holes, lengths to draw from, and the name under which output tells of them."""

    counts: Counts
    told: str
    holes: int
    """Bins of streams that nobody measured, filled in between their neighbours."""
    lengths: LengthTable
    lengths_told: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShapedDemand:
    """A `port.Demand` over a trace's bins."""

    models: tuple[str, ...]
    start_us: int
    duration_us: int
    past_days: int
    origin_us: int
    """Trace time of the first bin's start."""
    width_us: int
    expected: Floats
    """Bins x models, over the whole trace."""
    lengths: LengthTable
    seed: int
    cv: float | None = None
    changes: tuple[Change, ...] = ()
    unborn: tuple[int, ...] = field(default=())
    """Models that nobody asked for in the days before."""

    def chunks(self) -> Iterator[Requests]:
        bins = self._bins(self.start_us, self.changes)
        if self.cv is None:
            yield from _joined(bins, self.models)
            return
        whole = [one for one in bins if len(one.at_us)]
        if whole:
            yield from _joined(iter([_redrawn(_concat(whole), self.cv, self.seed)]), self.models)

    def past(self, days_back: int) -> Iterator[Requests]:
        assert 1 <= days_back <= self.past_days, f"no day {days_back} before the slice"
        silent = tuple(
            Change(model=model, start_us=0, stop_us=self.duration_us, times=0.0)
            for model in self.unborn
        )
        yield from _joined(self._bins(self.start_us - days_back * DAY_US, silent), self.models)

    def _bins(self, start_us: int, changes: tuple[Change, ...]) -> Iterator["_Bin"]:
        """Bin by bin, from a moment of the trace, for as long as the slice is."""
        stop_us = start_us + self.duration_us
        for row in range(
            (start_us - self.origin_us) // self.width_us,
            -(-(stop_us - self.origin_us) // self.width_us),
        ):
            left_us = self.origin_us + row * self.width_us
            window = _Window(
                max(left_us, start_us) - start_us,
                min(left_us + self.width_us, stop_us) - start_us,
            )
            yield self._bin(row, window, changes)

    def _bin(self, row: int, window: "_Window", changes: tuple[Change, ...]) -> "_Bin":
        rng = stream(self.seed, f"arrivals/{row}")
        expected = self.expected[row] * (window.length_us / self.width_us)
        drawn = _drawn(rng, expected, window)
        for at, change in enumerate(changes):
            if within := window.meet(change):
                drawn = self._changed(drawn, row, at, change, within)
        order = np.lexsort((drawn.model, drawn.at_us))
        table = self.lengths
        picks = stream(self.seed, f"lengths/{row}").integers(
            len(table.prompt_tokens), size=len(order)
        )
        return _Bin(
            drawn.at_us[order],
            drawn.model[order],
            table.prompt_tokens[picks],
            table.output_tokens[picks],
        )

    def _changed(
        self, drawn: "_Drawn", row: int, at: int, change: Change, within: "_Window"
    ) -> "_Drawn":
        """Thin the model's requests in the window, or add to them."""
        rng = stream(self.seed, f"change/{at}/{row}")
        if change.times < 1:
            meant = (drawn.model == change.model) & within.holds(drawn.at_us)
            stays = ~meant | (rng.random(len(meant)) < change.times)
            drawn = _Drawn(drawn.at_us[stays], drawn.model[stays])
        usual = self.expected[row, change.model] * within.length_us / self.width_us
        more = np.zeros(len(self.models))
        more[change.model] = usual * max(change.times - 1, 0.0)
        more[change.model] += change.plus_rps * within.length_us / US
        extra = _drawn(rng, more, within)
        return _Drawn(
            np.concatenate((drawn.at_us, extra.at_us)),
            np.concatenate((drawn.model, extra.model)),
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """From and until, in the slice's time."""

    start_us: int
    stop_us: int

    @property
    def length_us(self) -> int:
        return self.stop_us - self.start_us

    def meet(self, change: Change) -> "_Window | None":
        start = max(self.start_us, change.start_us)
        stop = min(self.stop_us, change.stop_us)
        return _Window(start, stop) if start < stop else None

    def holds(self, at_us: Ints) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        return (at_us >= self.start_us) & (at_us < self.stop_us)


@dataclass(frozen=True, slots=True)
class _Drawn:
    at_us: Ints
    model: Ints


@dataclass(frozen=True, slots=True)
class _Bin:
    at_us: Ints
    model: Ints
    prompt_tokens: Ints
    output_tokens: Ints


def _drawn(rng: np.random.Generator, expected: Floats, window: _Window) -> _Drawn:
    """Requests of every model in a window."""
    whole = np.floor(expected)
    counts = (whole + (rng.random(len(expected)) < expected - whole)).astype(np.int64)
    times = [
        (renewal_within(rng, count) * window.length_us).astype(np.int64)
        for count in counts[counts > 0].tolist()
    ]
    at_us = np.concatenate(times) if times else np.zeros(0, np.int64)
    return _Drawn(at_us + window.start_us, np.repeat(np.arange(len(counts)), counts))


def _redrawn(whole: _Bin, cv: float, seed: int) -> _Bin:
    """Every gap of the merged stream drawn anew; first and last request stay where they are."""
    count = len(whole.at_us)
    if count < 3:
        return whole
    ends = np.cumsum(renewal_gaps(stream(seed, "gaps"), count - 1, cv))
    span_us = int(whole.at_us[-1] - whole.at_us[0])
    at_us = np.concatenate(([0], (ends / ends[-1] * span_us).astype(np.int64))) + whole.at_us[0]
    return _Bin(at_us, whole.model, whole.prompt_tokens, whole.output_tokens)


def _concat(bins: list[_Bin]) -> _Bin:
    return _Bin(
        np.concatenate([one.at_us for one in bins]),
        np.concatenate([one.model for one in bins]),
        np.concatenate([one.prompt_tokens for one in bins]),
        np.concatenate([one.output_tokens for one in bins]),
    )


def _joined(bins: Iterator[_Bin], models: tuple[str, ...]) -> Iterator[Requests]:
    """Bins to chunks of a bearable size; a bin is never split."""
    kept: list[_Bin] = []
    for one in bins:
        kept.append(one)
        if sum(len(b.at_us) for b in kept) >= CHUNK_REQUESTS:
            yield _requests(_concat(kept), models)
            kept = []
    if any(len(one.at_us) for one in kept):
        yield _requests(_concat(kept), models)


def _requests(found: _Bin, models: tuple[str, ...]) -> Requests:
    return Requests(
        start_us=0,
        at_us=found.at_us,
        streams=models,
        stream=found.model,
        prompt_tokens=found.prompt_tokens,
        output_tokens=found.output_tokens,
    )
