"""The last seconds of each model: how fast requests come, how they clump, how long they are. Pure.

In: totals as the gateway counts them, when they were read. Out: arrays over models. Never: reads a
clock; takes a total that fell (a gateway that began anew) for requests that went away.
"""

from typing import NamedTuple

import numpy as np

from placement.planning.demand import ModelDemand
from prewarm.calendars import US
from prewarm.foresight.learnt import Usual
from prewarm.series import Floats
from prewarm.traces.records import Ints

LN2 = 0.693147
WATCHED_S_MIN = 10.0
"""A rate over less time than this is taken as if nothing had come in the rest of it."""
CLUMP_US = 5 * US
"""Arrivals of so much time are compared with those of as much before, so that a rate that changes
counts once: a request runs about that long, so that clumps of this size meet on replicas."""
CLUMP_HALF_LIFE_US = 600 * US
CLUMP_DOUBT = 30.0
"""What is usual counts as so many arrivals."""
CLUMP_MAX = 16.0
"""What is off by more is no clump but another rate."""
TOKENS_HALF_LIFE_US = 3600 * US
TOKENS_DOUBT = 50.0
"""What is usual counts as so many requests."""


class Totals(NamedTuple):
    """Of each model, since its gateway began. Shapes M."""

    offered: Ints
    answered: Ints
    prompt: Ints
    output: Ints


def totals_of(demand: tuple[ModelDemand, ...]) -> Totals:
    rows = [(d.offered, d.answered, d.prompt_tokens, d.output_tokens) for d in demand]
    return Totals(*np.array(rows, np.int64).reshape(-1, 4).T)


def since(now: Ints, before: Ints) -> Ints:
    """What was added to a total. One that fell began anew at 0."""
    added = now - before
    return np.where(added < 0, now, added)


def clumping(before: Floats | Ints, after: Floats | Ints) -> tuple[Floats, Floats]:
    """Counts of two equal times after each other: their variance by their difference, their mean.
    Over many pairs the sums of both have the dispersion as their ratio."""
    return (after - before) ** 2 / 2, (after + before) / 2


class Near:
    """Fading sums over `M` models. Mutated by `begin`, once, and then by `add`."""

    def __init__(self, usual: list[Usual], half_life_us: int) -> None:
        count = len(usual)
        self._half_life_us = half_life_us
        self._totals = Totals(*np.zeros((4, count), np.int64))
        self._at_us = self._clump_us = 0
        self._tau_s = half_life_us / US / LN2
        self._weight: Floats = np.zeros(count)
        self._watched_s = 0.0
        self._clump: Floats = np.zeros(count)
        self._clump_before: Floats | None = None
        self._off: Floats = np.zeros(count)
        self._of: Floats = np.zeros(count)
        self._usual_off: Floats = np.array([CLUMP_DOUBT * u.dispersion for u in usual])
        tokens = [(1.0, u.prompt_tokens, u.output_tokens) for u in usual]
        self._tokens: Floats = TOKENS_DOUBT * np.array(tokens).reshape(-1, 3).T
        self._usual_tokens: Floats = self._tokens.copy()

    def begin(self, totals: Totals, at_us: int) -> None:
        """Nothing of what had come by then counts."""
        self._totals, self._at_us, self._clump_us = totals, at_us, at_us

    def add(self, totals: Totals, at_us: int) -> None:
        """Totals at a later moment."""
        passed_us = at_us - self._at_us
        came = since(totals.offered, self._totals.offered)
        self._add_tokens(totals, passed_us)
        self._totals, self._at_us = totals, at_us
        fade = 0.5 ** (passed_us / self._half_life_us)
        self._weight = self._weight * fade + came
        self._watched_s = self._watched_s * fade + self._tau_s * (1 - fade)
        self._clump += came
        if at_us - self._clump_us >= CLUMP_US:
            self._close_clump(at_us)

    def _close_clump(self, at_us: int) -> None:
        if self._clump_before is not None:
            fade = 0.5 ** ((at_us - self._clump_us) / CLUMP_HALF_LIFE_US)
            off, of = clumping(self._clump_before, self._clump)
            self._off = self._off * fade + np.minimum(off, CLUMP_MAX * of)
            self._of = self._of * fade + of
        self._clump_before, self._clump_us = self._clump, at_us
        self._clump = np.zeros_like(self._clump)

    def _add_tokens(self, totals: Totals, passed_us: int) -> None:
        answered = since(totals.answered, self._totals.answered)
        if answered.any():
            prompt = since(totals.prompt, self._totals.prompt)
            output = since(totals.output, self._totals.output)
            self._tokens += np.stack((answered, prompt, output))
        fade = 0.5 ** (passed_us / TOKENS_HALF_LIFE_US)
        self._tokens = self._usual_tokens + (self._tokens - self._usual_tokens) * fade

    @property
    def rate_per_s(self) -> Floats:
        """Of the last seconds alone."""
        return self._weight / max(self._watched_s, WATCHED_S_MIN)

    @property
    def seconds(self) -> float:
        """An even mean over so much time would be as sure as the fading one."""
        fading = self._watched_s / (2 * self._tau_s)
        return self._watched_s / (1 - fading) if self._watched_s else 0.0

    @property
    def dispersion(self) -> Floats:
        """Variance over mean of the arrivals in `CLUMP_US`; at least 1."""
        return np.maximum((self._off + self._usual_off) / (self._of + CLUMP_DOUBT), 1.0)

    @property
    def prompt_tokens(self) -> Floats:
        found: Floats = self._tokens[1] / self._tokens[0]
        return found

    @property
    def output_tokens(self) -> Floats:
        found: Floats = self._tokens[2] / self._tokens[0]
        return found
