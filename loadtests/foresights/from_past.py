"""Foresight of a scenario's models, learnt from the days before its slice. Pure and seeded.

In: a `Setup`. Out: a `Foreseeing` for one run of it. Never: looks at the slice to come.

Simulated time 0 is the start of the warm-up, during which nobody asks: bins are those of the slice.
"""

import msgspec
import numpy as np

from loadtests.draws import stream
from loadtests.foresights.slices import SliceCalendar
from loadtests.simulator.port import Demand, Setup
from prewarm.calendars import DAY_US
from prewarm.foresight.foreseeing import Foreseeing
from prewarm.foresight.learnt import Learnt, Usual
from prewarm.foresight.near import CLUMP_US, clumping
from prewarm.foresight.options import DEFAULT, Options
from prewarm.series import Floats, Panel
from prewarm.traces.records import Ints, Requests


def learned(setup: Setup, options: Options = DEFAULT) -> Foreseeing:
    """Seeded by the setup's seed: the same setup is foreseen alike."""
    demand = setup.demand
    width_us = min(options.width_us, max(demand.duration_us, 1))
    slice_bins = -(-demand.duration_us // width_us)
    # Beyond the slice's end lies the next day's.
    horizons = tuple(h for h in options.horizons if h <= max(slice_bins, 1)) or (1,)
    options = msgspec.structs.replace(options, width_us=width_us, horizons=horizons)
    calendar = SliceCalendar(
        demand.start_us - demand.past_days * DAY_US, width_us, slice_bins=max(slice_bins, 1)
    )
    learnt = _learnt(demand, calendar)
    rng = stream(setup.seed, "foresight")
    return Foreseeing(setup.catalog, learnt, setup.warmup_us, rng, options)


def _learnt(demand: Demand, calendar: SliceCalendar) -> Learnt:
    days = [_Day(demand, calendar) for _ in range(demand.past_days)]
    for back, day in zip(range(demand.past_days, 0, -1), days, strict=True):
        for chunk in demand.past(back):
            day.add(chunk)
    counts = [day.counts for day in days]
    values = np.concatenate(counts) if counts else np.empty((0, len(demand.models)))
    panel = Panel(calendar=calendar, streams=demand.models, values=values)
    return Learnt(panel=panel, usual=_usual(days, demand.models))


class _Day:
    """What was asked in one slice. Mutated by `add`."""

    def __init__(self, demand: Demand, calendar: SliceCalendar) -> None:
        self._bins, self._width_us = calendar.slice_bins, calendar.width_us
        self._models = demand.models
        self._whole = demand.duration_us // calendar.width_us
        self._places = {model: i for i, model in enumerate(demand.models)}
        clumps = -(-demand.duration_us // CLUMP_US)
        self._clumps: Ints = np.zeros((clumps, len(demand.models)), np.int64)
        self._counts: Ints = np.zeros((self._bins, len(demand.models)), np.int64)
        self.requests: Ints = np.zeros(len(demand.models), np.int64)
        self.prompt: Ints = np.zeros(len(demand.models), np.int64)
        self.output: Ints = np.zeros(len(demand.models), np.int64)

    def add(self, chunk: Requests) -> None:
        of_stream = np.array([self._places[model] for model in chunk.streams])
        model = of_stream[chunk.stream]
        count = len(self._models)
        for grid, width_us in ((self._counts, self._width_us), (self._clumps, CLUMP_US)):
            cell = chunk.at_us // width_us * count + model
            grid += np.bincount(cell, minlength=grid.size).reshape(grid.shape)
        self.requests += np.bincount(model, minlength=count)
        for total, tokens in (
            (self.prompt, chunk.prompt_tokens),
            (self.output, chunk.output_tokens),
        ):
            total += np.bincount(model, weights=tokens, minlength=count).astype(np.int64)

    @property
    def counts(self) -> Floats:
        """Bins x models; a bin that the slice's end cuts is a hole."""
        found = self._counts.astype(np.float64)
        found[self._whole :] = np.nan
        return found

    def clumping(self) -> tuple[Floats, Floats]:
        """Variances and means, summed over the slice. Shapes: models."""
        off, of = clumping(self._clumps[:-1], self._clumps[1:])
        return off.sum(axis=0), of.sum(axis=0)


def _usual(days: list[_Day], models: tuple[str, ...]) -> dict[str, Usual]:
    """Of models that were asked at all."""
    if not days:
        return {}
    requests = np.sum([day.requests for day in days], axis=0)
    prompt = np.sum([day.prompt for day in days], axis=0)
    output = np.sum([day.output for day in days], axis=0)
    off, of = (np.sum(parts, axis=0) for parts in zip(*(d.clumping() for d in days), strict=True))
    return {
        model: Usual(
            prompt_tokens=prompt[i] / requests[i],
            output_tokens=output[i] / requests[i],
            dispersion=max(float(off[i] / of[i]), 1.0) if of[i] else Usual().dispersion,
        )
        for i, model in enumerate(models)
        if requests[i]
    }
