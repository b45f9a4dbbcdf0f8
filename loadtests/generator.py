"""Demand of our own where no trace lies at hand. Pure and seeded.

In: a seed, how many clients, how many days. Out: `Counts` and the `Requests` behind them.
Each client is a Gamma renewal process run along its own rate: a day shape, a week shape, shifts of
level, bursts. Both outputs come from the same events, so they always agree.
Never: copies a public trace, reads a file or a clock.
"""

from typing import NamedTuple

import numpy as np

from loadtests.draws import OUTPUT_TOKENS, PROMPT_TOKENS, Floats, Ints, renewal_gaps, stream
from prewarm.traces.records import DAY_US, HOUR_US, US, Counts, Requests

BIN_US = 600 * US
# 1970-01-05 was a Monday: the generated weeks start where people's do.
MONDAY_US = 4 * DAY_US
_BIN_H = BIN_US / HOUR_US


class World(NamedTuple):
    """How large the generated demand is. The busiest client asks `busiest_per_bin` on average."""

    clients: int = 40
    days: int = 14
    busiest_per_bin: float = 300.0
    cv: float = 2.0

    @property
    def bins(self) -> int:
        return self.days * DAY_US // BIN_US

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"g{client}" for client in range(self.clients))


DEFAULT_WORLD = World()


def generate_counts(seed: int, world: World = DEFAULT_WORLD) -> Counts:
    """Requests per client and 10 minutes; no holes."""
    counts: Ints = np.zeros((world.bins, world.clients), np.int64)
    for client in range(world.clients):
        places = client_times_us(seed, world, client) // BIN_US
        counts[:, client] = np.bincount(places, minlength=world.bins)
    return Counts(
        start_us=MONDAY_US,
        width_us=BIN_US,
        streams=world.names,
        counts=counts,
        holes=np.zeros(counts.shape, np.bool_),
    )


def generate_requests(seed: int, world: World = DEFAULT_WORLD) -> Requests:
    """The same demand, one row a request, with lengths that differ from client to client."""
    times = [client_times_us(seed, world, client) for client in range(world.clients)]
    of_client = np.repeat(np.arange(world.clients), [len(t) for t in times])
    prompts, outputs = zip(
        *(_lengths(seed, client, len(t)) for client, t in enumerate(times)), strict=True
    )
    at_us = np.concatenate(times) + MONDAY_US
    order = np.lexsort((of_client, at_us))
    return Requests(
        start_us=MONDAY_US,
        at_us=at_us[order],
        streams=world.names,
        stream=of_client[order],
        prompt_tokens=np.concatenate(prompts)[order],
        output_tokens=np.concatenate(outputs)[order],
    )


def client_times_us(seed: int, world: World, client: int) -> Ints:
    """When one client asks, from 0: renewals of mean gap 1 along the integral of its rate."""
    grown = np.concatenate(([0.0], np.cumsum(rate_per_bin(seed, world, client))))
    rng = stream(seed, f"renewals/{client}")
    # The first gap starts at a random point of the process, else all clients would clump at 0.
    enough = int(grown[-1] + 8 * world.cv * np.sqrt(grown[-1]) + 20)
    ends = np.cumsum(renewal_gaps(rng, enough, world.cv)) - rng.random()
    ends = ends[(ends >= 0) & (ends < grown[-1])]
    edges = np.arange(world.bins + 1) * float(BIN_US)
    times: Ints = np.interp(ends, grown, edges).astype(np.int64)
    return np.minimum(times, world.bins * BIN_US - 1)


def rate_per_bin(seed: int, world: World, client: int) -> Floats:
    """Expected requests of a client in each bin."""
    rng = stream(seed, f"shape/{client}")
    volume = world.busiest_per_bin * (client + 1) ** -1.1
    hours: Floats = (np.arange(world.bins, dtype=np.float64) + 0.5) * _BIN_H
    shape: Floats = _day_shape(rng, hours) * _week_shape(rng, hours)
    rate: Floats = volume * (shape / shape.mean()) * _levels(rng, hours) * _bursts(rng, hours)
    return rate


def _day_shape(rng: np.random.Generator, hours: Floats) -> Floats:
    """People by day: a hump around the afternoon, its depth and hour a client's own."""
    depth = rng.uniform(0.3, 1.4)
    peak_h = rng.normal(15.0, 2.0)
    angle = 2 * np.pi * (hours - peak_h) / 24
    shape: Floats = np.exp(depth * (np.cos(angle) + 0.25 * np.cos(2 * angle)))
    return shape


def _week_shape(rng: np.random.Generator, hours: Floats) -> Floats:
    """Saturday and Sunday are quieter for most, busier for a few."""
    weekend = rng.uniform(0.3, 1.1)
    return np.where((hours // 24) % 7 >= 5, weekend, 1.0)


def _levels(rng: np.random.Generator, hours: Floats) -> Floats:
    """Now and then a client's level shifts for good: about once in ten days."""
    level: Floats = np.ones_like(hours)
    for _ in range(rng.poisson(hours[-1] / 240)):
        level[hours >= rng.uniform(0, hours[-1])] *= np.exp(rng.normal(0.0, 0.5))
    return level


def _bursts(rng: np.random.Generator, hours: Floats) -> Floats:
    """About one burst in two days: up to several times the rate, over in an hour or so."""
    burst: Floats = np.ones_like(hours)
    for _ in range(rng.poisson(hours[-1] / 48)):
        start_h, height = rng.uniform(0, hours[-1]), rng.lognormal(1.0, 0.5)
        since = hours - start_h
        burst += np.where(
            since >= 0, height * np.exp(-np.maximum(since, 0) / rng.uniform(0.2, 1.0)), 0.0
        )
    return burst


def _lengths(seed: int, client: int, count: int) -> tuple[Ints, Ints]:
    """Lognormal lengths around a mean of the client's own."""
    rng = stream(seed, f"lengths/{client}")
    prompt = PROMPT_TOKENS._replace(mean=PROMPT_TOKENS.mean * rng.lognormal(0.0, 0.3))
    output = OUTPUT_TOKENS._replace(mean=OUTPUT_TOKENS.mean * rng.lognormal(0.0, 0.3))
    return prompt.draw(rng, count), output.draw(rng, count)
