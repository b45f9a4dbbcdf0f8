"""The `Foresight` of the controller: observations in, what is expected out. Pure and seeded.

In: observations, in order of time. Out: an `Outlook` at any moment, `DemandPaths` when due. Draws
from the generator that is handed in. Never: reads a clock; reckons anew what cannot have changed: a
planning round comes every half second, and there may be hundreds of models.

Three paces. Rates of the moment are read twice a second. In which futures how many replicas are
needed is reckoned every few seconds. What is forecast changes when a bin ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from placement.catalog import Catalog, ModelId
from placement.planning.demand import ModelDemand
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.paths import DemandPaths
from prewarm.calendars import US
from prewarm.controller import Observed
from prewarm.foresight.ahead import Ahead, Now
from prewarm.foresight.at_once import bin_at, gpus_at_once, gpus_of
from prewarm.foresight.bins import Bins
from prewarm.foresight.capacity import Capacity
from prewarm.foresight.far import Far
from prewarm.foresight.joint import demand_paths
from prewarm.foresight.learnt import UNKNOWN, Learnt
from prewarm.foresight.near import Near, Totals, totals_of
from prewarm.foresight.needs import Masks, masks, needed, pieces
from prewarm.foresight.options import Options
from prewarm.foresight.peaks import peak_at
from prewarm.series import Bools, Floats
from prewarm.traces.records import Ints


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What exists once there was a first observation."""

    near: Near
    bins: Bins


class Foreseeing:
    """`begins_us`: when the bin after the past begins, on the clock of the observations. What is
    observed before that is no demand of any bin."""

    def __init__(
        self,
        catalog: Catalog,
        learnt: Learnt,
        begins_us: int,
        rng: np.random.Generator,
        options: Options,
    ) -> None:
        past_rng, paths_rng = rng.spawn(2)
        self._options = options
        self._begins_us = begins_us
        self.models = learnt.panel.streams
        self._known = frozenset(self.models)
        self._usual = [learnt.usual.get(model, UNKNOWN) for model in self.models]
        specs = [catalog.model(model) for model in self.models]
        self._most: Ints = np.array([s.max_replicas if s else 1 for s in specs], np.int64)
        self._gpus = gpus_of(catalog, self.models)
        self._capacity = Capacity(catalog, self.models)
        self.far = Far(learnt, options.horizons, catalog.policy.waiting_to_idle, past_rng)
        reach = -(-options.within_us[-1] // options.width_us) + 1
        self._ahead = Ahead(options, max(options.steps, reach), paths_rng)
        self._ahead.draw(self.far)
        count = len(self.models)
        self._state: _State | None = None
        self._totals: Totals = totals_of(())
        self._running: Floats = np.zeros(count)
        self._seen_us = begins_us
        self._now: Now = self._ahead.now(np.zeros(count), 0.0, np.ones(count))
        self._need: list[list[Masks]] = []
        self._at_once: tuple[tuple[int, ...], ...] = ()
        self._need_us = begins_us
        self._paths_us: int | None = None
        self._outlook: Outlook | None = None

    # --- the `Foresight` of the controller

    def see(self, seen: Observed) -> None:
        if self._state is not None and seen.at_us - self._seen_us < self._options.near_every_us:
            return
        rows: dict[str, ModelDemand] = {d.model_id: d for d in seen.demand}
        demand = tuple(rows[model] for model in self.models)
        totals = totals_of(demand)
        self._running = np.array([d.held + d.in_flight for d in demand], np.float64)
        if self._state is None:
            self._begin(totals, seen.at_us)
        if self._state is not None:
            self._add(self._state, totals, seen.at_us)
        self._totals, self._seen_us, self._outlook = totals, seen.at_us, None

    def outlook(self, now_us: int) -> Outlook:
        if self._outlook is None:
            self._refresh(now_us)
            self._outlook = self._made(now_us)
        return self._outlook

    def paths(self, now_us: int) -> DemandPaths | None:
        due_us = self._paths_us
        if due_us is not None and now_us < due_us:
            return None
        self._paths_us = now_us + self._options.paths_every_us
        self._refresh(now_us)
        steps, state = self._options.steps, self._state
        return demand_paths(
            self.models,
            state.bins.start_us if state is not None else self._begins_us,
            self._options.width_us,
            self._ahead.rates(self._now)[:, :steps],
            self._ahead.chances[:, :steps],
            self._capacity.service_s,
            self._dispersion,
            self._capacity.slots,
        )

    # --- learning

    def _begin(self, totals: Totals, at_us: int) -> None:
        """What came between the last look before the beginning and the first after it counts."""
        if at_us < self._begins_us:
            return
        first = self._totals if len(self._totals.offered) else totals
        from_us = max(self._seen_us, self._begins_us)
        near = Near(self._usual, first, from_us, self._options.half_life_us)
        bins = Bins(self._begins_us, self._options.width_us, first.offered, from_us)
        self._state = _State(near, bins)

    def _add(self, state: _State, totals: Totals, at_us: int) -> None:
        near = state.near
        near.add(totals, at_us, self._now.rate_per_s)
        for counts in state.bins.add(totals.offered, at_us):
            self.far.close(counts)
            self._ahead.draw(self.far)
            self._need = []
        self._now = self._ahead.now(near.rate_per_s, near.seconds, near.dispersion)

    @property
    def _dispersion(self) -> Floats:
        if self._state is None:
            return np.array([usual.dispersion for usual in self._usual])
        return self._state.near.dispersion

    # --- what follows from it

    def _refresh(self, now_us: int) -> None:
        """How many replicas are needed, where that is not known of late."""
        if self._need and now_us < self._need_us:
            return
        self._need_us = now_us + self._options.need_every_us
        near = self._state.near if self._state is not None else None
        prompt = near.prompt_tokens if near else np.array([u.prompt_tokens for u in self._usual])
        output = near.output_tokens if near else np.array([u.output_tokens for u in self._usual])
        self._capacity.look(self._now.rate_per_s, prompt, output)
        self._need = self._needs(max(now_us, self._begins_us))
        self._at_once = tuple(self._gpus_at_once(max(now_us, self._begins_us)))

    def _needs(self, now_us: int) -> list[list[Masks]]:
        """By model, then by horizon."""
        rates, slots, most = self._ahead.rates(self._now), self._capacity.slots, self._most
        counts: Ints = np.zeros((len(rates), len(self.models)), np.int64)
        start_us = self._state.bins.start_us if self._state is not None else self._begins_us
        by_horizon = []
        for within_us in self._options.within_us:
            for at, window_us in pieces(start_us, self._options.width_us, now_us, within_us):
                peaks = peak_at(
                    self._ahead.chances[:, at],
                    rates[:, at],
                    self._capacity.service_s,
                    self._dispersion,
                    window_us / US,
                    self._running if at == 0 else 0.0,
                )
                counts = np.maximum(counts, needed(peaks, slots, most))
            by_horizon.append(masks(counts))
        return [list(one) for one in zip(*by_horizon, strict=True)]

    def _gpus_at_once(self, now_us: int) -> Iterator[tuple[int, ...]]:
        """By horizon, then by path."""
        rates, width_us = self._ahead.rates(self._now), self._options.width_us
        start_us = self._state.bins.start_us if self._state is not None else self._begins_us
        for ahead_us in self._options.within_us:
            at = bin_at(start_us, width_us, now_us + ahead_us)
            yield gpus_at_once(
                self._ahead.chances[:, at],
                rates[:, at],
                self._capacity.service_s,
                self._dispersion,
                self._capacity.slots,
                self._most,
                self._gpus,
            )

    def _made(self, now_us: int) -> Outlook:
        acts: Bools = self.far.acts[:, 0]
        columns = zip(
            self.models,
            self._now.rate_per_s.tolist(),
            self._dispersion.tolist(),
            self._capacity.service_s.tolist(),
            self._capacity.slots.tolist(),
            acts.tolist(),
            self._need,
            strict=True,
        )
        models = {
            model: ModelOutlook(
                model_id=ModelId(model),
                rate_per_s=rate,
                dispersion=dispersion,
                service_s=service_s,
                slots=slots,
                acts=act,
                need=tuple(need),
            )
            for model, rate, dispersion, service_s, slots, act, need in columns
        }
        return Outlook(
            made_us=now_us,
            horizons_us=self._options.within_us,
            paths=self._options.paths,
            models=models,
            gpus=self._at_once,
        )
