"""What a model with little past of its own may be asked: wide bands, and honest ones. Pure.

In: what the operator said of new models, what all streams are asked, bin after bin. Out: quantiles
from, in this order, an announced launch, the rate that is expected, the model that it is like, or
what other models are asked; they give way to the model's own bins with weight n / (n + k).
Never: narrower than demand wanders within hours; leaves an answer out, even with no other model.

Levels are log-normal: mean rates of 205 ServeGen clients are (skewness 0.2 in logs, deviation 2.1
and 2.7). A Gamma with the same log moments, updated by its conjugate, had four to twenty times the
pinball loss there after an hour, for its mean hangs on its tail.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.catalog import ModelSpec
from prewarm.calendars import US
from prewarm.events import ANNOUNCED_SD
from prewarm.forecast import Setting
from prewarm.series import Floats

Indices = NDArray[np.int64]

LIKE_SD = 1.0
"""In logs: another model is asked e times more or less than the one that it is said to be like."""
POPULARITY_SD = 2.4
"""In logs, until the other models tell. Between what two ServeGen families show."""
ALONE_PER_S = 1.0 / 60.0
"""Requests a second of a model that nobody knows anything about, where there is no other."""
WANDER_VAR = 0.5
"""In logs: however long a level was seen, it may be another one within hours."""
NOISE = 0.5
"""Variance of bins over their squared mean, beyond what a Poisson count has."""
BINS_ALIKE = 6.0
"""Neighbouring bins repeat each other: so many tell as much as one alone would."""
RECENT_BINS = 12
"""Half-life of what counts as the model's own level."""
RARE = 0.5
"""Per bin. Less is not told apart, so that a popular model soon outgrows a fleet of idle ones."""


class Hints(NamedTuple):
    """What the operator said of models. Shape S each."""

    expected: Floats
    """Per bin; NaN where nothing was said."""
    like: Indices
    """The index of the stream that it resembles; -1: none."""


def hints_of(models: Sequence[ModelSpec], streams: Sequence[str], width_us: int) -> Hints:
    """What the catalog says of the models whose requests are these streams."""
    specs: dict[str, ModelSpec] = {spec.id: spec for spec in models}
    place = {stream: i for i, stream in enumerate(streams)}
    told = [specs.get(stream) for stream in streams]
    rates = [spec.expected_per_s if spec and spec.expected_per_s else np.nan for spec in told]
    like = [place.get(spec.like, -1) if spec else -1 for spec in told]
    return Hints(np.array(rates, np.float64) * width_us / US, np.array(like, np.int64))


class _Belief(NamedTuple):
    """A log-normal level for each horizon, and what own bins are measured by."""

    log_level: Floats
    """Shape S x H."""
    variance: Floats
    """Shape S."""
    reference: Floats
    """What the own bins so far would have summed up to, had it been right. Shape S."""


class _Recent(NamedTuple):
    """Sums over a model's own bins, the newest counting most. Shape S each."""

    bins: Floats
    asked: Floats
    alike: Floats
    """What the model that it is like was asked in these bins."""
    launched: Floats
    """What was announced of these bins."""


class Prior:
    """`S` streams, `H` horizons, `L` levels. Mutated by `update` alone."""

    def __init__(self, setting: Setting, hints: Hints, alone: float | None = None) -> None:
        """`alone`: per bin, of a model without hints or peers; default as for requests."""
        width_us, count = setting.calendar.width_us, len(setting.streams)
        self._horizons = len(setting.horizons)
        self._hints = hints
        self._alone = ALONE_PER_S * width_us / US if alone is None else alone
        self._z = np.array([NormalDist().inv_cdf(level) for level in setting.levels])
        self._day_bins = setting.calendar.day_bins
        self._nothing = np.full((count, self._horizons), np.nan)
        # Of the model's own time: bins, and the recent sums that `_Recent` tells of.
        self._bins = np.zeros(count)
        self._recent = np.zeros((len(_Recent._fields), count))
        self._launching = np.zeros(count, np.bool_)
        # Of all time: what other models compare themselves with.
        self._all_bins, self._all_asked = np.zeros(count), np.zeros(count)

    def update(self, values: Floats, launches: Floats | None = None) -> None:
        """The next bin, and what was announced of it (`Uplift.launches`). NaN is a hole."""
        launching = np.zeros_like(self._launching) if launches is None else np.isfinite(launches)
        begun = launching & ~self._launching
        self._launching = launching
        twins = np.where(self._hints.like >= 0, values[self._hints.like], 0.0)
        known = np.isfinite(values) & np.isfinite(twins)
        keep = np.where(known, 0.5 ** (1.0 / RECENT_BINS), 1.0)
        launched = np.zeros_like(values) if launches is None else np.nan_to_num(launches)
        new = np.stack(_Recent(np.ones_like(values), values, twins, launched))
        kept = np.where(begun, 0.0, self._recent)  # before its launch nobody could ask
        self._recent = keep * kept + np.where(known, new, 0.0)
        self._bins = np.where(begun, 0.0, self._bins) + known
        self._all_bins += np.isfinite(values)
        self._all_asked += np.nan_to_num(values)

    def weight(self) -> Floats:
        """How much of the level is the model's own by now: n / (n + k), below 1. Shape S."""
        belief = self._belief(self._nothing, self._nothing)
        return self._own_weight(belief)

    def quantiles(self, forecasts: Floats | None = None, launches: Floats | None = None) -> Floats:
        """Shape S x H x L. `forecasts`: medians of all streams, for those who are like them, and
        `launches` announced of the bins to come: S x H each, NaN where there is none."""
        belief = self._belief(
            self._nothing if forecasts is None else forecasts,
            self._nothing if launches is None else launches,
        )
        weight = self._own_weight(belief)
        asked = _Recent(*self._recent).asked
        shift = weight * np.log((asked + 0.5) / (belief.reference + 0.5))
        log_level = belief.log_level + shift[:, None]
        level_variance = np.maximum(belief.variance * (1.0 - weight), WANDER_VAR)[:, None]
        noise = np.log1p(NOISE) + np.log1p(np.exp(-log_level))  # of bins, and of counts
        middle = log_level - noise / 2.0  # levels are means, above the median of what scatters
        spread = np.sqrt(level_variance + noise)
        found: Floats = np.exp(middle[..., None] + spread[..., None] * self._z)
        return found

    def _own_weight(self, belief: _Belief) -> Floats:
        """k: how many bins tell as much as the belief does. Bins of few requests tell less."""
        recent = _Recent(*self._recent)
        seen = np.maximum(recent.asked, belief.reference) / np.maximum(recent.bins, 1.0)
        k = BINS_ALIKE / belief.variance * (NOISE + 1.0 / np.maximum(seen, RARE))
        weight: Floats = self._bins / (self._bins + k)
        return weight

    def _belief(self, forecasts: Floats, launches: Floats) -> _Belief:
        """The first of: a launch, a model that it is like, a rate, what the others are asked.

        A rate and a likeness together: the rate says how much, the likeness when.
        """
        level, spread = self._popularity()
        expected, like = self._hints
        rated, alike = np.isfinite(expected), like >= 0
        constant = np.where(rated, expected, level)
        twin_level = self._levels()[like]
        alike = alike & (twin_level > 0)
        twin_level = np.where(alike, twin_level, 1.0)
        scale = np.where(rated, constant / twin_level, 1.0)
        twins = np.where(np.isfinite(forecasts[like]), forecasts[like], twin_level[:, None])
        shaped = np.where(alike[:, None], twins * scale[:, None], constant[:, None])
        launched, recent = np.isfinite(launches), _Recent(*self._recent)
        means = np.where(launched, launches, shaped)
        sure = rated | self._launching | launched.any(axis=1)
        return _Belief(
            log_level=np.log(np.maximum(means, 1e-3)),
            variance=np.where(sure, ANNOUNCED_SD**2, np.where(alike, LIKE_SD**2, spread)),
            reference=np.where(
                self._launching,
                recent.launched,
                np.where(alike, recent.alike * scale, recent.bins * constant),
            ),
        )

    def _levels(self) -> Floats:
        """Of streams that were seen for a day; 0 of the others. Shape S."""
        old = self._all_bins >= self._day_bins
        levels: Floats = np.where(old, self._all_asked / np.maximum(self._all_bins, 1.0), 0.0)
        return levels

    def _popularity(self) -> tuple[float, float]:
        """The level of a model like any other here, and the variance of its logarithm.

        What is assumed counts as one model of that level, and as two that tell of the spread.
        """
        levels = self._levels()
        logs = np.log(levels[levels > 0])
        middle = (logs.sum() + np.log(self._alone)) / (len(logs) + 1)
        squares = ((logs - middle) ** 2).sum() + 2.0 * POPULARITY_SD**2
        return float(np.exp(middle)), float(squares / (len(logs) + 2))
