"""What is usual in each window of the slice: the mean over past days (4.1). Pure.

In: a setup's demand of past days. Out: per model and window, mean concurrency and its peak at
arrivals. Concurrency is rebuilt from arrivals with fixed service times, as published: a prefill,
then so much for each token, however many run beside it. Never: looks at the day to come.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from loadtests.baselines.warmserve.forecast import Seen
from loadtests.simulator.port import Demand, Setup
from placement.catalog import ModelSpec
from placement.service_time import timing_of
from prewarm.traces.records import Requests

Ints = NDArray[np.int64]
PS_IN_US = 10**6


def usual_windows(setup: Setup, window_us: int) -> dict[str, list[Seen]]:
    """For each model the windows of the slice, averaged over all past days; empty without any."""
    demand = setup.demand
    specs: dict[str, ModelSpec] = {spec.id: spec for spec in setup.catalog.models}
    gpu_type = setup.catalog.nodes[0].gpu_type
    days = [
        _Day(demand, window_us).read(demand.past(back), specs, gpu_type)
        for back in range(1, demand.past_days + 1)
    ]
    if not days:
        return {model: [] for model in demand.models}
    return {model: _mean([day[model] for day in days]) for model in demand.models}


def usage_of(setup: Setup) -> dict[str, tuple[float, float]]:
    """Each model's mean concurrency and mean tokens of a request, over all past days."""
    whole = usual_windows(setup, max(setup.demand.duration_us, 1))
    tokens, count = dict.fromkeys(setup.demand.models, 0), dict.fromkeys(setup.demand.models, 0)
    for back in range(1, setup.demand.past_days + 1):
        for chunk in setup.demand.past(back):
            for index, model in enumerate(chunk.streams):
                mine = np.flatnonzero(chunk.stream == index)
                tokens[model] += int(np.sum(chunk.prompt_tokens[mine] + chunk.output_tokens[mine]))
                count[model] += len(mine)
    return {
        model: (seen[0].average if seen else 0.0, tokens[model] / max(count[model], 1))
        for model, seen in whole.items()
    }


def service_us(spec: ModelSpec, gpu_type: str, prompt: Ints, output: Ints) -> Ints:
    """How long each request runs on a replica of its own."""
    if spec.service is not None:
        fixed: Ints = spec.service.prefill_us + output * spec.service.decode_step_us
        return fixed
    timing = timing_of(spec, gpu_type)
    steps = np.maximum(output - 1, 0)
    read = steps * (prompt + 1) + steps * (steps - 1) // 2
    prefill = timing.prefill_base_us + timing.prefill_token_ps * prompt // PS_IN_US
    decode = steps * timing.step_base_us + timing.step_context_token_ps * read // PS_IN_US
    alone: Ints = prefill + timing.prefill_request_us + decode
    return alone


class _Day:
    """One past day: areas and peaks by window, filled chunk by chunk."""

    def __init__(self, demand: Demand, window_us: int) -> None:
        self._models = demand.models
        self._window_us = window_us
        count = max(-(-demand.duration_us // window_us), 1)
        self._edges: Ints = np.minimum(
            np.arange(count + 1, dtype=np.int64) * window_us, max(demand.duration_us, 1)
        )
        self._areas = {m: np.zeros(count, np.int64) for m in demand.models}
        self._peaks = {m: np.zeros(count, np.int64) for m in demand.models}
        self._running: dict[str, Ints] = {m: np.zeros(0, np.int64) for m in demand.models}

    def read(
        self, chunks: Iterable[Requests], specs: dict[str, ModelSpec], gpu_type: str
    ) -> dict[str, list[Seen]]:
        for chunk in chunks:
            for index, model in enumerate(chunk.streams):
                mine = np.flatnonzero(chunk.stream == index)
                if model in specs and len(mine):
                    at_us = chunk.at_us[mine]
                    prompt, output = chunk.prompt_tokens[mine], chunk.output_tokens[mine]
                    ends = at_us + service_us(specs[model], gpu_type, prompt, output)
                    self._add(model, at_us, ends)
        return {model: self._windows(model) for model in self._models}

    def _add(self, model: str, at_us: Ints, ends: Ints) -> None:
        self._areas[model] += np.diff(_time_until(self._edges, at_us, ends))
        running = np.sort(np.concatenate((self._running[model], ends)))
        before = len(self._running[model])
        ended = np.searchsorted(running, at_us, side="right")
        level = before + np.arange(1, len(at_us) + 1) - ended
        window = np.minimum(at_us // self._window_us, len(self._peaks[model]) - 1)
        np.maximum.at(self._peaks[model], window, level)
        self._running[model] = running[running > at_us[-1]]

    def _windows(self, model: str) -> list[Seen]:
        means = self._areas[model] / np.diff(self._edges)
        return [
            Seen(mean, float(peak))
            for mean, peak in zip(means.tolist(), self._peaks[model].tolist(), strict=True)
        ]


def _time_until(edges: Ints, at_us: Ints, ends: Ints) -> Ints:
    """Microseconds that these requests have run, together, by each of the edges."""
    origin = int(at_us[0])
    moments = np.maximum(edges - origin, 0)
    return _since(moments, at_us - origin) - _since(moments, np.sort(ends - origin))


def _since(moments: Ints, times: Ints) -> Ints:
    """For each moment, the time since each of the (ascending) times before it, summed."""
    sums: Ints = np.concatenate(([0], np.cumsum(times)))
    count = np.searchsorted(times, moments, side="left")
    return moments * count - sums[count]


def _mean(days: list[list[Seen]]) -> list[Seen]:
    return [
        Seen(sum(s.average for s in same) / len(same), sum(s.peak for s in same) / len(same))
        for same in zip(*days, strict=True)
    ]
