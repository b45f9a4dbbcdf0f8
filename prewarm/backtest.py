"""What the forecasts of a past would have been worth, bin by bin, nobody looking ahead. An edge.

In: a `Panel`, which horizons, from when on to score. Out: a `Backtest`, with every forecaster
scored on the same bins, and a `Trail` to draw. It runs the `Selector` that runs beside a gateway,
one update and one prediction a bin, so that peeking would be peeking there too. It is an edge for
reading a clock and for the slow forecasters that it fits in place. Never: scores a hole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from placement.catalog import DemandEvent
from placement.clock import US, monotonic_us
from prewarm.events import Uplift
from prewarm.forecast import Setting
from prewarm.forecasters.background import InPlace
from prewarm.forecasters.guests import House
from prewarm.scores import Backtest, HorizonResult, Score, StreamResult
from prewarm.scoring import (
    SCORED_REQUESTS_MIN,
    Rules,
    at_level,
    countable,
    pit,
    score,
    week_bins,
    worst_week_of_all,
)
from prewarm.selection.selector import Selector
from prewarm.series import Bools, Floats, Panel

OURS = "blend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """`score_from` is a bin. `forecasters`: names beside the built-in ones, who always compete."""

    horizons: tuple[int, ...]
    score_from: int
    waiting_to_idle: float = 9.0
    forecasters: tuple[str, ...] = ()
    keep: bool = False
    """Keep a `Trail`."""
    seed: int = 0
    events: tuple[DemandEvent, ...] = ()
    country: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trail:
    """The scored bins, each with what had been forecast of it. T bins, S streams, H horizons."""

    first: int
    horizons: tuple[int, ...]
    names: tuple[str, ...]
    actual: Floats
    q50: Floats
    q90: Floats
    q95: Floats
    chosen: NDArray[np.int64]
    """Index into `names` of who weighed most; -1: nobody forecast this bin."""
    acted: Bools


def backtest(
    panel: Panel, ask: Ask, progress: Callable[[float], None] = lambda _: None
) -> tuple[Backtest, Trail | None]:
    """`progress` is told the share of bins gone through. Raises `UnknownForecasterError`."""
    run = _Run(panel, ask)
    for at in range(len(panel)):
        run.step(at)
        if at % 64 == 0:
            progress(at / max(len(panel), 1))
    return run.found(), run.trail() if ask.keep else None


class _Run:
    def __init__(self, panel: Panel, ask: Ask) -> None:
        self._panel, self._ask = panel, ask
        setting = Setting(
            calendar=panel.calendar,
            streams=panel.streams,
            horizons=ask.horizons,
            whole=panel.whole,
        )
        rng = np.random.default_rng(ask.seed)
        self._slow = House(ask.forecasters, setting, InPlace(), ask.country)
        uplift = Uplift(panel.calendar, panel.streams, ask.events) if ask.events else None
        self._selector = Selector(
            setting,
            rng,
            waiting_to_idle=ask.waiting_to_idle,
            guests=self._slow.guests,
            uplift=uplift,
        )
        self.names = self._selector.names
        self._levels = setting.levels
        self._first = min(ask.score_from, len(panel))
        self._rows = len(panel) - self._first
        shape = (self._rows, len(panel.streams), len(ask.horizons))
        # Ours first, then every member alone; float32 for its size.
        everyone = (len(self.names) + 1, *shape, len(setting.levels))
        self._quantiles = np.full(everyone, np.nan, np.float32)
        self._acted = np.zeros(shape, np.bool_)
        self._chosen = np.full(shape, -1, np.int64)
        self._shares = np.zeros((len(self.names), *shape[1:]))
        self._clipped = np.zeros(shape[1:], np.int64)
        self._values = panel.values[self._first :]
        self._uniform = np.random.default_rng((ask.seed, 1)).random(self._values.shape)
        self._rules = Rules(
            week_bins=week_bins(panel.calendar),
            whole=panel.whole,
            waiting_to_idle=ask.waiting_to_idle,
        )
        self._spent_us: list[tuple[int, int]] = []
        self._ages: dict[str, list[float]] = {}

    def step(self, at: int) -> None:
        began_us, fitted_s = monotonic_us(), self._slow.fitting_s
        self._selector.update(self._panel.values[at])
        learnt_us = monotonic_us()
        ours = self._selector.predict()
        # Slow fits are told on their own: beside a gateway they are another process's.
        fits_us = round((self._slow.fitting_s - fitted_s) * US)
        self._spent_us.append((learnt_us - began_us - fits_us, monotonic_us() - learnt_us))
        if at == self._first:
            self._clipped = self._selector.clipped.copy()
        each, weights = self._selector.each, self._selector.weights
        for place, ahead in enumerate(self._ask.horizons):
            row = at + ahead - self._first
            if 0 <= row < self._rows:
                self._quantiles[0, row, :, place] = ours[:, place]
                self._quantiles[1:, row, :, place] = each[:, :, place]
                self._acted[row, :, place] = self._selector.acts[:, place]
                heaviest = weights[:, :, place].argmax(axis=0)
                self._chosen[row, :, place] = np.where(np.isnan(ours[:, place, -1]), -1, heaviest)
                self._shares[:, :, place] += weights[:, :, place]
        for name, age in self._slow.staleness_bins(at).items():
            self._ages.setdefault(name, []).append(age)

    def found(self) -> Backtest:
        width_s = self._panel.calendar.width_us / US
        update_ms, predict_ms = np.mean(self._spent_us[self._first :] or [(0, 0)], axis=0) / 1000
        learning_s = sum(update_us for update_us, _ in self._spent_us[: self._first]) / US
        return Backtest(
            width_s=int(width_s),
            first_scored=self._first,
            streams=self._streams(),
            fit_s={
                OURS: learning_s,
                **{n: sum(s) / len(s) for n, s in self._slow.fitted_s.items()},
            },
            update_ms=float(update_ms),
            predict_ms=float(predict_ms),
            staleness_s={
                name: _mean_age(self._ages.get(name, [0.0])) * width_s for name in self.names
            },
            worst_weeks_q90=self._worst_weeks(),
            troubles=self._slow.troubles(),
        )

    def _worst_weeks(self) -> tuple[float, ...]:
        """Ours, of all averaged streams together: a week that is bad for all shows here alone."""
        asked = np.nansum(self._values, axis=0) >= SCORED_REQUESTS_MIN
        values, uniform = self._values[:, asked], self._uniform[:, asked]
        found = []
        for place in range(len(self._ask.horizons)):
            ours = self._quantiles[0, :, asked, place].swapaxes(0, 1).astype(np.float64)
            counts = countable(values, ours, np.ones(values.shape, np.bool_))
            u = pit(values, ours, uniform, self._rules)
            found.append(worst_week_of_all(u, counts, 0.9, self._rules.week_bins))
        return tuple(found)

    def _streams(self) -> tuple[StreamResult, ...]:
        panel, values = self._panel, self._values
        scored = np.ones(values.shape, np.bool_)
        scores: list[list[list[Score]]] = [
            [
                score(
                    values,
                    quantiles[:, :, place].astype(np.float64),
                    scored,
                    self._uniform,
                    self._rules,
                )
                for place in range(len(self._ask.horizons))
            ]
            for quantiles in self._quantiles
        ]
        asked = np.nansum(values, axis=0)
        return tuple(
            StreamResult(
                stream=stream,
                scored=float(asked[at]),
                notes=(),
                horizons=tuple(
                    self._horizon(at, place, scores) for place in range(len(self._ask.horizons))
                ),
            )
            for at, stream in enumerate(panel.streams)
        )

    def _horizon(self, at: int, place: int, scores: list[list[list[Score]]]) -> HorizonResult:
        ahead = self._ask.horizons[place]
        shares = self._shares[:, at, place]
        total = shares.sum()
        return HorizonResult(
            horizon_s=int(ahead * self._panel.calendar.width_us / US),
            score=scores[0][place][at],
            clipped=int(self._selector.clipped[at, place] - self._clipped[at, place]),
            acted_share=float(self._acted[:, at, place].mean()) if self._rows else 0.0,
            method_share={
                name: float(share / total)
                for name, share in zip(self.names, shares, strict=True)
                if total > 0
            },
            forecasters={name: scores[i + 1][place][at] for i, name in enumerate(self.names)},
        )

    def trail(self) -> Trail:
        ours = self._quantiles[0].astype(np.float64)
        q50, q90, q95 = (at_level(ours, self._levels, level) for level in (0.5, 0.9, 0.95))
        return Trail(
            first=self._first,
            horizons=self._ask.horizons,
            names=self.names,
            actual=self._panel.values[self._first :],
            q50=q50,
            q90=q90,
            q95=q95,
            chosen=self._chosen,
            acted=self._acted,
        )


def _mean_age(ages: list[float]) -> float:
    """While there was a fit; NaN where there never was."""
    known = [age for age in ages if not isnan(age)]
    return sum(known) / len(known) if known else nan
