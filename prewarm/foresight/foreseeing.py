"""The `Foresight` of the controller: observations in, what is expected out. Pure and seeded.

In: observations, in order of time. Out: an `Outlook` at any moment, `DemandPaths` when due. Draws
from the generator that is handed in. Never: reads a clock; reckons anew what cannot have changed: a
planning round comes every half second, and there may be hundreds of models.

Three paces. Rates of the moment are read twice a second. In which futures how many replicas are
needed is reckoned every few seconds. What is forecast changes when a bin ends.
"""

from collections.abc import Iterator

import msgspec
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
from prewarm.foresight.needs import Masks, masks, most_replicas, needed, pieces
from prewarm.foresight.options import Options
from prewarm.foresight.peaks import peak_at
from prewarm.series import Bools, Floats
from prewarm.traces.records import Ints


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
        self._most = most_replicas(catalog, self.models)
        self._gpus = gpus_of(catalog, self.models)
        self._capacity = Capacity(catalog, self.models)
        self.far = Far(learnt, options.horizons, catalog.policy.waiting_to_idle, past_rng)
        reach = -(-options.within_us[-1] // options.width_us) + 1
        self._ahead = Ahead(options, max(options.steps, reach), paths_rng)
        self._ahead.draw(self.far)
        count = len(self.models)
        usual = [learnt.usual.get(model, UNKNOWN) for model in self.models]
        self._near = Near(usual, options.half_life_us)
        self._bins = Bins(begins_us, options.width_us)
        self._begun = False
        self._demand = tuple(ModelDemand(model_id=ModelId(model)) for model in self.models)
        self._totals: Totals | None = None
        self._running: Floats = np.zeros(count)
        self._seen_us = begins_us
        self._now: Now = self._ahead.now(np.zeros(count), 0.0, self._near.dispersion)
        self._need: list[list[Masks]] = []
        self._at_once: tuple[tuple[int, ...], ...] = ()
        self._need_us = begins_us
        self._paths_us: int | None = None
        self._outlook: Outlook | None = None

    # --- the `Foresight` of the controller

    def see(self, seen: Observed) -> None:
        if self._begun and seen.at_us - self._seen_us < self._options.near_every_us:
            return
        self._demand = self._of_mine(seen.demand)
        totals = totals_of(self._demand)
        self._running = np.array([d.held + d.in_flight for d in self._demand], np.float64)
        if seen.at_us >= self._begins_us:
            self._add(totals, seen.at_us)
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
        steps = self._options.steps
        return demand_paths(
            self.models,
            self._bins.start_us,
            self._options.width_us,
            self._ahead.rates(self._now)[:, :steps],
            self._ahead.chances[:, :steps],
            self._capacity.service_s,
            self._near.dispersion,
            self._capacity.slots,
        )

    # --- learning

    def _of_mine(self, demand: tuple[ModelDemand, ...]) -> tuple[ModelDemand, ...]:
        """Who has left is asked nothing; who is new has no outlook, and lives reactively."""
        rows: dict[str, ModelDemand] = {d.model_id: d for d in demand}
        return tuple(rows.get(d.model_id) or _gone(d) for d in self._demand)

    def _add(self, totals: Totals, at_us: int) -> None:
        if not self._begun:
            self._begin(totals, at_us)
        self._near.add(totals, at_us)
        over = list(self._bins.add(totals.offered, at_us))
        if over:
            self.far.close(over)
            self._ahead.draw(self.far)
            self._need = []
        near = self._near
        self._now = self._ahead.now(near.rate_per_s, near.seconds, near.dispersion)

    def _begin(self, totals: Totals, at_us: int) -> None:
        """What came between the last look before the beginning and the first after it counts."""
        self._begun = True
        if self._totals is not None:
            totals, at_us = self._totals, max(self._seen_us, self._begins_us)
        self._near.begin(totals, at_us)
        self._bins.begin(totals.offered, at_us)

    # --- what follows from it

    def _refresh(self, now_us: int) -> None:
        """How many replicas are needed, where that is not known of late."""
        if self._need and now_us < self._need_us:
            return
        self._need_us = now_us + self._options.need_every_us
        near = self._near
        self._capacity.look(self._now.rate_per_s, near.prompt_tokens, near.output_tokens)
        self._need = self._needs(max(now_us, self._begins_us))
        self._at_once = tuple(self._gpus_at_once(max(now_us, self._begins_us)))

    def _needs(self, now_us: int) -> list[list[Masks]]:
        """By model, then by horizon."""
        rates, slots, most = self._ahead.rates(self._now), self._capacity.slots, self._most
        counts: Ints = np.zeros((len(rates), len(self.models)), np.int64)
        start_us = self._bins.start_us
        by_horizon = []
        for within_us in self._options.within_us:
            for at, window_us in pieces(start_us, self._options.width_us, now_us, within_us):
                peaks = peak_at(
                    self._ahead.chances[:, at],
                    rates[:, at],
                    self._capacity.service_s,
                    self._near.dispersion,
                    window_us / US,
                    self._running if at == 0 else 0.0,
                )
                counts = np.maximum(counts, needed(peaks, slots, most))
            by_horizon.append(masks(counts))
        return [list(one) for one in zip(*by_horizon, strict=True)]

    def _share_begun(self, now_us: int) -> float:
        """Of the nearest horizon: before the beginning nobody asks."""
        near_us = self._options.within_us[0]
        return min(max((now_us + near_us - self._begins_us) / near_us, 0.0), 1.0)

    def _gpus_at_once(self, now_us: int) -> Iterator[tuple[int, ...]]:
        """By horizon, then by path."""
        rates, width_us = self._ahead.rates(self._now), self._options.width_us
        start_us = self._bins.start_us
        for ahead_us in self._options.within_us:
            at = bin_at(start_us, width_us, now_us + ahead_us)
            yield gpus_at_once(
                self._ahead.chances[:, at],
                rates[:, at],
                self._capacity.service_s,
                self._near.dispersion,
                self._capacity.slots,
                self._most,
                self._gpus,
            )

    def _made(self, now_us: int) -> Outlook:
        acts: Bools = self.far.acts[:, 0]
        rates: Floats = self._now.rate_per_s * self._share_begun(now_us)
        columns = zip(
            self.models,
            rates.tolist(),
            self._near.dispersion.tolist(),
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


def _gone(demand: ModelDemand) -> ModelDemand:
    return msgspec.structs.replace(demand, held=0, in_flight=0)
