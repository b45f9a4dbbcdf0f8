"""Foresight that knows what comes: how much a better forecast could still be worth. Pure.

In: a `Setup`, whose demand is read to its end. Out: a `Foresight` with a single path, on which
every arrival and every service time is that of the slice. Never: knows how long anybody will wait:
requests run from their arrival, as if a replica had always been warm.
"""

from typing import NamedTuple

import numpy as np

from loadtests.simulator.port import Setup
from placement.catalog import Catalog, ModelId
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.paths import DemandPaths
from prewarm.calendars import US
from prewarm.controller import Observed
from prewarm.foresight.capacity import Capacity
from prewarm.foresight.needs import masks, most_replicas, needed
from prewarm.foresight.options import DEFAULT, Options
from prewarm.series import Floats
from prewarm.traces.records import Ints
from prewarm.warm_service import timing_in, warm_concurrency

RATE_US = 10 * US
"""Over so long a rate is counted: of what is to come, and of what runs beside a request."""


class Asked(NamedTuple):
    """Of one model, in order of time; times on the clock of the simulation."""

    at_us: Ints
    prompt: Ints
    output: Ints


def perfect(setup: Setup, options: Options = DEFAULT) -> "Perfect":
    """All requests of the slice are in memory together, some tens of bytes each."""
    models = setup.demand.models
    parts: list[list[Asked]] = [[] for _ in models]
    for chunk in setup.demand.chunks():
        for stream, model in enumerate(chunk.streams):
            mine = np.flatnonzero(chunk.stream == stream)
            at_us = chunk.at_us[mine] + setup.warmup_us
            tokens = chunk.prompt_tokens[mine], chunk.output_tokens[mine]
            parts[models.index(model)].append(Asked(at_us, *tokens))
    nothing = Asked(*np.zeros((3, 0), np.int64))
    asked = [Asked(*map(np.concatenate, zip(nothing, *one, strict=True))) for one in parts]
    end_us = setup.warmup_us + setup.demand.duration_us
    return Perfect(setup.catalog, models, asked, end_us, options)


class Perfect:
    """Seconds from 0 to the end of the slice, and what there is of each model in each of them."""

    def __init__(
        self,
        catalog: Catalog,
        models: tuple[str, ...],
        asked: list[Asked],
        end_us: int,
        options: Options,
    ) -> None:
        self._options, self._models = options, models
        self._seconds = end_us // US + 1
        self._arrivals = np.array([_per_second(one.at_us, self._seconds) for one in asked])
        self._capacity = Capacity(catalog, models)
        self._most = most_replicas(catalog, models)
        prompt, output = (
            np.array([column.mean() if len(column) else 1.0 for column in columns])
            for columns in zip(*((one.prompt, one.output) for one in asked), strict=True)
        )
        self._capacity.look(self._arrivals.mean(axis=1), prompt, output)
        self._peaks = np.array(
            [
                running_peaks(one.at_us, self._service_us(catalog, model, one), self._seconds)
                for model, one in zip(models, asked, strict=True)
            ]
        )
        self._running: Floats = np.zeros(len(models))
        self._outlook: Outlook | None = None
        self._paths_us: int | None = None

    def see(self, seen: Observed) -> None:
        rows = {str(d.model_id): d.held + d.in_flight for d in seen.demand}
        self._running = np.array([rows.get(model, 0) for model in self._models], np.float64)

    def outlook(self, now_us: int) -> Outlook:
        made = self._outlook
        if made is None or now_us - made.made_us >= self._options.near_every_us:
            made = self._outlook = self._made(now_us)
        return made

    def paths(self, now_us: int) -> DemandPaths | None:
        if self._paths_us is not None and now_us < self._paths_us:
            return None
        self._paths_us = now_us + self._options.paths_every_us
        first, width = now_us // US, self._options.width_us // US
        steps = [
            self._peak(first + i * width, first + (i + 1) * width)
            for i in range(self._options.steps)
        ]
        return DemandPaths(
            models=self._models,
            start_us=first * US,
            step_us=width * US,
            concurrency=np.stack(steps, axis=1)[:, :, None].astype(np.int32),
            service_s=tuple(self._capacity.service_s.tolist()),
            slots=tuple(self._capacity.slots.tolist()),
        )

    def _service_us(self, catalog: Catalog, model: str, asked: Asked) -> Ints:
        """Beside as many others as its rate of those seconds brings."""
        timed = timing_in(catalog, model)
        if timed is None or not len(asked.at_us):
            return np.full(len(asked.at_us), US)
        rates = np.bincount(asked.at_us // RATE_US) / (RATE_US / US)
        at = rates[asked.at_us // RATE_US]
        tokens = asked.prompt.astype(np.float64), asked.output.astype(np.float64)
        service_s = warm_concurrency(*timed, at, *tokens).service_s
        found: Ints = (service_s * US).astype(np.int64)
        return found

    def _made(self, now_us: int) -> Outlook:
        first, soon = now_us // US, self._options.within_us
        rates = self._arrivals[:, first : first + RATE_US // US].sum(axis=1) / (RATE_US / US)
        needs = []
        for within_us in soon:
            until = -(-(now_us + within_us) // US)
            peaks = np.maximum(self._peak(first, until), self._running)
            needs.append(masks(needed(peaks[None], self._capacity.slots, self._most)))
        models = {
            model: ModelOutlook(
                model_id=ModelId(model),
                rate_per_s=rate,
                service_s=service_s,
                slots=slots,
                need=tuple(need[at] for need in needs),
            )
            for at, (model, rate, service_s, slots) in enumerate(
                zip(
                    self._models,
                    rates.tolist(),
                    self._capacity.service_s.tolist(),
                    self._capacity.slots.tolist(),
                    strict=True,
                )
            )
        }
        return Outlook(made_us=now_us, horizons_us=soon, models=models)

    def _peak(self, first: int, until: int) -> Floats:
        """Of each model, from one second to another; nothing beyond the end."""
        found: Floats = self._peaks[:, first:until].max(axis=1, initial=0).astype(np.float64)
        return found


def _per_second(at_us: Ints, seconds: int) -> Ints:
    found: Ints = np.bincount(at_us // US, minlength=seconds)[:seconds]
    return found


def running_peaks(at_us: Ints, service_us: Ints, seconds: int) -> Ints:
    """In each second the most that ran at once, where everybody runs from their arrival on. Who
    ends the moment another comes makes room for it."""
    times = np.concatenate((at_us + service_us, at_us))
    steps = np.repeat(np.array([-1, 1]), len(at_us))
    order = np.lexsort((steps, times))
    times, levels = times[order], np.cumsum(steps[order])
    starts = np.arange(seconds) * US
    before = np.searchsorted(times, starts, side="right")
    found: Ints = np.concatenate(([0], levels))[before].astype(np.int64)
    rises = (steps[order] > 0) & (times < seconds * US)
    np.maximum.at(found, times[rises] // US, levels[rises])
    return found
