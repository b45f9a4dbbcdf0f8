"""What one more engine of a model saves, in each future, if its GPUs can always be had. Pure.

In: joint demand paths, facts. Out: per model its `Use`s: the first engine's, the second's, ...
Never: knows a GPU set.

**The reckoning.** In a path the k-th engine is first called for when the model's need rises to k.
If it sleeps then, its climb takes a second or so; if it does not exist, a start does. Of a climb of
d seconds with λ arrivals a second the first request waits d, and those that come meanwhile d/2:
d + λd²/2 request-seconds. The difference is saved, once a path: an engine that demand has started
stays, so that later rises climb from sleep either way. It is spread evenly over the steps for which
the need lasts, so that in each of them it can be set against others that want the same GPUs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from placement.catalog import ModelSpec
from placement.edges import climb_us, footprint_bytes, shared_copies
from placement.planning.draft import Draft
from placement.planning.kinds import weights_at
from placement.planning.paths import DemandPaths
from placement.planning.ranks import serves_or_will
from placement.snapshot import Rung

US = 1_000_000

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Use:
    """Of the `count`-th engine of a model. A cell is a step of a path, counted step by step."""

    spec: ModelSpec
    count: int
    cells: Cells
    """In which it is called for; those in which it saves nothing are left out."""
    parked: Floats
    """Saved in each of these cells in the mean of the paths, times the model's weight, by an engine
    that sleeps with its weights on the host."""
    shed: Floats
    """The same of one that sleeps without."""
    in_time: Floats
    """The share of each cell that an engine lives to see which has yet to be started."""
    cost: float
    """What its start takes of its GPUs, in the same money."""
    start_us: int
    start_by_us: int

    @property
    def key(self) -> tuple[str, int]:
        return (self.spec.id, self.count)

    def saved(self, rests: Rung, *, exists: bool) -> Floats:
        saved = self.parked if rests is Rung.PARKED else self.shed
        return saved if exists else saved * self.in_time

    def most(self, rests: Rung, *, exists: bool) -> float:
        """If it can have its GPUs whenever it is called for, less what its start costs."""
        total = float(self.saved(rests, exists=exists).sum())
        return total if exists else total - self.cost

    @cached_property
    def bytes_per_gpu(self) -> float:
        return float(footprint_bytes(self.spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One model: its uses, and in which cells its replicas that serve now are needed on."""

    spec: ModelSpec
    uses: tuple[Use, ...]
    goes_on: tuple[Mask, ...]
    """For the first that serves now, the second, ..."""


def plannable(spec: ModelSpec) -> bool:
    """Whether its engines have to exist before they can serve, on GPUs of their own."""
    return spec.managed and spec.on_gpu and not shared_copies(spec)


def called_for(draft: Draft, paths: DemandPaths) -> dict[str, Called]:
    """By model, of those that have engines to plan and a node to stand on."""
    found, needed = {}, paths.needed()
    for at, model_id in enumerate(paths.models):
        spec = draft.facts.catalog.model(model_id)
        if spec is not None and plannable(spec) and draft.nodes:
            found[model_id] = _Calls(draft, paths, at, spec, needed[at]).called()
    return found


class _Calls:
    """One model over all steps and paths."""

    def __init__(
        self,
        draft: Draft,
        paths: DemandPaths,
        at: int,
        spec: ModelSpec,
        needed: NDArray[np.int32],
    ) -> None:
        facts = draft.facts
        self._paths, self._spec, self._now_us = paths, spec, facts.now_us
        self._needed = np.minimum(needed, spec.max_replicas)
        self._slots = max(paths.slots[at], 1)
        self._concurrency = paths.concurrency[at]
        self._service_s = max(paths.service_s[at], 1e-3)
        self._serving = sum(map(serves_or_will, draft.of_model(spec.id)))
        self._price = facts.catalog.waiting_to_idle(spec.id)
        nodes = [(n, draft.spec_of(n).links) for n in draft.nodes.values()]
        self._start_us = min(climb_us(spec, weights_at(n, spec), links) for n, links in nodes)
        self._climb_s = {
            rung: min(climb_us(spec, rung, links) for _, links in nodes) / US
            for rung in (Rung.PARKED, Rung.SHED)
        }

    def called(self) -> Called:
        most = int(self._needed.max(initial=0))
        goes_on = tuple(
            np.logical_and.accumulate(self._needed >= k, axis=0).ravel()
            for k in range(1, self._serving + 1)
        )
        uses = tuple(self._use(k) for k in range(self._spec.min_replicas + 1, most + 1))
        return Called(spec=self._spec, uses=uses, goes_on=goes_on)

    def _use(self, count: int) -> Use:
        needed = self._needed >= count
        first = self._first_time(needed, count)
        lasts = first.sum(axis=0)
        cells = np.flatnonzero(first)
        path = cells % needed.shape[1]
        rises = np.argmax(first, axis=0)[path]
        weight = 2.0**self._spec.priority / needed.shape[1] / lasts[path]
        arrivals = self._arrivals_per_s(count)[rises, path]
        cold = _waited(self._start_us / US, arrivals)
        saved = {r: weight * (cold - _waited(s, arrivals)) for r, s in self._climb_s.items()}
        return Use(
            spec=self._spec,
            count=count,
            cells=cells,
            parked=np.maximum(saved[Rung.PARKED], 0.0),
            shed=np.maximum(saved[Rung.SHED], 0.0),
            in_time=self._in_time()[cells // needed.shape[1]],
            cost=self._start_us / US * self._spec.gpus / max(self._price, 1e-9),
            start_us=self._start_us,
            start_by_us=self._start_by_us(needed),
        )

    def _first_time(self, needed: Mask, count: int) -> Mask:
        """From the first rise of each path to the step in which that need ends. Replicas that serve
        now do not rise before they have been needed no more."""
        before = np.zeros_like(needed)
        before[1:] = needed[:-1]
        before[0] = count <= self._serving
        rises = needed & ~before
        risen = np.logical_or.accumulate(rises, axis=0)
        ended = np.logical_or.accumulate(risen & ~needed, axis=0)
        return risen & ~ended

    def _arrivals_per_s(self, count: int) -> Floats:
        """Of requests that only this replica has slots for."""
        mine = self._concurrency - self._slots * (count - 1)
        found: Floats = np.clip(mine, 0, self._slots) / self._service_s
        return found

    def _in_time(self) -> Floats:
        """Of each step the share that is left once a start that begins now has ended."""
        paths = self._paths
        ends_us = paths.start_us + paths.step_us * np.arange(1, self._needed.shape[0] + 1)
        left = (ends_us - self._now_us - self._start_us) / max(paths.step_us, 1)
        found: Floats = np.clip(left, 0.0, 1.0)
        return found

    def _start_by_us(self, needed: Mask) -> int:
        """So that it is there when it is needed as often as waiting is dearer than idling."""
        share = needed.mean(axis=1)
        likely = np.flatnonzero(share >= 1.0 / (1.0 + self._price))
        step = int(likely[0]) if len(likely) else needed.shape[0]
        return self._paths.start_us + step * self._paths.step_us - self._start_us


def _waited(climb_s: float, arrivals_per_s: Floats) -> Floats:
    found: Floats = climb_s * (1.0 + arrivals_per_s * climb_s / 2.0)
    return found


def each(called: dict[str, Called]) -> Iterator[Use]:
    for one in called.values():
        yield from one.uses
