"""How much of a trace is asked: factors that turn counts into expected requests. Pure.

In: counts per bin and model, how models share the demand, how much there shall be. Out: one factor
a model, and what decided it. Never: draws, reads a trace.
"""

from dataclasses import dataclass

import numpy as np

from loadtests.draws import Floats, Ints
from prewarm.traces.records import US


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """Expected requests = counts x `factors`. `told` is for people and for the output."""

    factors: Floats
    told: dict[str, float | str]


def zipf_shares(models: int, alpha: float) -> Floats:
    """Model k has a share in proportion to (k+1)^-alpha."""
    weights: Floats = np.arange(1, models + 1, dtype=np.float64) ** -alpha
    shares: Floats = weights / weights.sum()
    return shares


def by_rate(counts: Floats, width_us: int, rps: float, shares: Floats) -> Level:
    """So that each model's mean over these bins is `rps` x its share.

    `counts` must ask for every model at least once: `never_silent` sees to it.
    """
    per_s = counts.mean(axis=0) / (width_us / US)
    return Level(factors=rps * shares / per_s, told={"mean_rps": rps})


def by_load(
    counts: Floats, width_us: int, weights: Floats, cost_s: Floats, gpus: int, load: "LoadGoal"
) -> Level:
    """So that mean and peak load reach their goals; the one that binds first decides.

    `weights`: relative factors between models. `cost_s`: GPU-seconds a request (`capacity`).
    """
    asked = counts @ (weights * cost_s) / (width_us / US) / gpus
    mean, peak = float(asked.mean()), float(asked.max())
    by_mean, by_peak = load.mean / mean, load.peak / peak
    factor = min(by_mean, by_peak)
    return Level(
        factors=weights * factor,
        told={
            "factor": factor,
            "binding": "mean" if by_mean <= by_peak else "peak",
            "mean_load": mean * factor,
            "peak_load": peak * factor,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGoal:
    """Shares of serving capacity."""

    mean: float
    peak: float


def never_silent(counts: Ints) -> Floats:
    """Counts in which a model that nobody asks is asked evenly instead: zeros cannot be scaled."""
    found: Floats = counts.astype(np.float64)
    found[:, found.sum(axis=0) == 0] = 1.0
    return found
