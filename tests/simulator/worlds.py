"""Small simulated clusters for tests: demand written by hand or drawn, setups, policies."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from loadtests.draws import stream
from loadtests.simulator.port import Policy, Run, Setup
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, World
from prewarm.controller import Controller
from prewarm.traces.records import Requests

US = 1_000_000


class Ask(NamedTuple):
    """A request by hand; the time is of the slice, in seconds."""

    at_s: float
    model: str
    prompt_tokens: int = 100
    output_tokens: int = 20


class Rows:
    """Demand that is wholly given. `chunk` rows at a time."""

    past_days = 0

    def __init__(self, rows: Requests, duration_us: int, chunk: int = 1000) -> None:
        self.models = rows.streams
        self.start_us = 0
        self.duration_us = duration_us
        self._rows = rows
        self._chunk = chunk

    def chunks(self) -> Iterator[Requests]:
        for start in range(0, len(self._rows), self._chunk):
            yield self._rows.rows(np.arange(start, min(start + self._chunk, len(self._rows))))

    def past(self, days_back: int) -> Iterator[Requests]:
        raise AssertionError(f"nobody kept day -{days_back}")


def asked(models: Iterable[str], *asks: Ask, duration_s: float = 0) -> Rows:
    names = tuple(models)
    rows = sorted(asks)
    last_s = rows[-1].at_s if rows else 0
    return Rows(
        Requests(
            start_us=0,
            at_us=np.array([int(a.at_s * US) for a in rows], dtype=np.int64),
            streams=names,
            stream=np.array([names.index(a.model) for a in rows], dtype=np.int64),
            prompt_tokens=np.array([a.prompt_tokens for a in rows], dtype=np.int64),
            output_tokens=np.array([a.output_tokens for a in rows], dtype=np.int64),
        ),
        int(max(duration_s, last_s) * US),
    )


def drawn(
    models: Iterable[str],
    seed: int,
    *,
    count: int,
    duration_s: int,
    tokens: tuple[int, int] = (400, 120),
    weights: Iterable[float] | None = None,
) -> Rows:
    """Requests at uniform moments, with bursts of a model now and then."""
    names, rng = tuple(models), stream(seed, "tests/demand")
    share = np.array(list(weights) if weights is not None else [1.0] * len(names))
    at_s = np.sort(rng.random(count)) * duration_s
    return Rows(
        Requests(
            start_us=0,
            at_us=(at_s * US).astype(np.int64),
            streams=names,
            stream=rng.choice(len(names), count, p=share / share.sum()).astype(np.int64),
            prompt_tokens=rng.integers(1, 2 * tokens[0], count),
            output_tokens=rng.integers(1, 2 * tokens[1], count),
        ),
        duration_s * US,
    )


def setup(whole: Catalog, demand: Rows, **changes: Any) -> Setup:
    defaults: dict[str, Any] = {"scenario": "test", "world": World.S, "seed": 1, "warmup_us": 0}
    return Setup(catalog=whole, demand=demand, **{**defaults, **changes})


def reactive(whole: Catalog, **changes: Any) -> Policy:
    return Policy(brain=Controller(whole, "t"), **changes)


def played(whole: Catalog, demand: Rows, **changes: Any) -> Run:
    """The reactive controller on this cluster, with every law asserted."""
    return simulate(setup(whole, demand, **changes), reactive(whole), checked=True)
