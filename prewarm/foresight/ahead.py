"""Rates that may come, path by path: the forecast, corrected by the last seconds. Pure and seeded.

In: a `Far` whenever a bin has ended, a generator, then the rates of the moment. Out: the rate now,
and rates by path, bin and stream. Never: lets the last seconds outweigh a sure forecast by chance,
or a forecast outweigh what they plainly say.

**The reckoning.** The forecast f of this bin has a variance v, the live rate x that of clumped
arrivals in so many seconds, w = dispersion x rate / seconds. Where x is further off than both
explain, the forecast is the one to doubt: v is then what explains it, (x - f)^2 - w. The rate is
f + v / (v + w) (x - f), and by what it is off from f, fading, later bins are moved as well.
"""

from typing import NamedTuple

import numpy as np

from prewarm.calendars import US
from prewarm.forecast import LEVELS
from prewarm.foresight.far import Far
from prewarm.foresight.options import Options
from prewarm.foresight.ranks import even, joint_ranks
from prewarm.series import Floats
from prewarm.traces.records import Ints

MOVED_HALF_LIFE_US = 900 * US
"""After so long half of what the last seconds were off is expected to be over."""
RATE_MIN = 1e-3


class Now(NamedTuple):
    """Arrivals a second. Shapes S."""

    rate_per_s: Floats
    off: Floats
    """From the forecast."""
    gain: Floats
    """The share of the forecast's doubt that the last seconds have settled."""


class Ahead:
    """`P` paths, `B` bins from the current one on, `S` streams. Mutated by `draw` alone."""

    def __init__(self, options: Options, bins: int, rng: np.random.Generator) -> None:
        self._options, self._rng = options, rng
        self._bins = bins
        self._width_s = options.width_us / US
        self._fades: Floats = 0.5 ** (np.arange(bins) * options.width_us / MOVED_HALF_LIFE_US)

    def draw(self, far: Far) -> None:
        """The paths from the bin after those that `far` has seen."""
        options, horizons = self._options, np.array(far.setting.horizons)
        ranks = joint_ranks(far.errors(), options.paths, self._rng, options.together)
        quantiles = turned(far.quantiles, far.seen()) if options.inverted else far.quantiles
        place = np.searchsorted(horizons, np.arange(1, self._bins + 1))
        place = np.minimum(place, len(horizons) - 1)
        arrivals = np.stack(
            [
                at_ranks(between(quantiles, horizons, ahead + 1), ranks[:, at])
                for ahead, at in enumerate(place.tolist())
            ],
            axis=1,
        )
        self.forecast: Floats = arrivals / self._width_s
        self._mean: Floats = self.forecast[:, 0].mean(axis=0)
        self._variance: Floats = self.forecast[:, 0].var(axis=0)
        self.chances: Floats = even(self._rng.random(self.forecast.shape))
        """A rank of its own for what happens within each bin, at a given rate."""

    def now(self, live_per_s: Floats, seconds: float, dispersion: Floats) -> Now:
        """`live_per_s` was measured over so many seconds; without a forecast it is all there is."""
        mean = np.where(np.isnan(self._mean), live_per_s, self._mean)
        off = live_per_s - mean
        rate = np.maximum(np.maximum(live_per_s, mean), RATE_MIN)
        noise = dispersion * rate / max(seconds, RATE_MIN)
        doubt = np.fmax(np.nan_to_num(self._variance), off * off - noise)
        gain = doubt / (doubt + noise)
        return Now(mean + gain * off, gain * off, gain)

    def rates(self, now: Now) -> Floats:
        """Arrivals a second on every path. Shape P x B x S."""
        moved = self.forecast + now.off * self._fades[:, None]
        settled = np.sqrt(1 - now.gain)
        moved[:, 0] = now.rate_per_s + (self.forecast[:, 0] - self._mean) * settled
        return np.maximum(np.where(np.isnan(moved), now.rate_per_s, moved), 0.0)


def between(quantiles: Floats, horizons: Ints, ahead: int) -> Floats:
    """Those of the bin so far ahead, from S x H x L. Shape S x L."""
    place = float(np.interp(ahead, horizons, range(len(horizons))))
    below, above = int(np.floor(place)), int(np.ceil(place))
    low, high = quantiles[:, below], quantiles[:, above]
    found: Floats = low + (place - below) * (high - low)
    return found


def at_ranks(quantiles: Floats, ranks: Floats) -> Floats:
    """For each stream its quantiles at many ranks: on the line between two levels, the outermost
    beyond them. Shapes S x L and P x S; P x S."""
    place = np.interp(ranks, LEVELS, range(len(LEVELS)))
    below = place.astype(np.int64)
    above = np.minimum(below + 1, len(LEVELS) - 1)
    each = np.arange(len(quantiles))
    low, high = quantiles[each, below], quantiles[each, above]
    found: Floats = low + (place - below) * (high - low)
    return found


def turned(quantiles: Floats, seen: Floats) -> Floats:
    """Upside down between the least and the most that was seen of each stream."""
    known = np.where(np.isnan(seen), 0.0, seen)
    least = np.where(np.isnan(seen), np.inf, seen).min(axis=0, initial=np.inf)
    most = known.max(axis=0, initial=0.0)
    least = np.minimum(least, most)
    found: Floats = np.clip((least + most)[:, None, None] - quantiles, 0.0, None)[..., ::-1]
    return found
