"""No residency plan within the same budgets is worth more than this. Pure.

In: an `Estate` in which only what exists is taken. Out: a number. Never: places anything.

**Proof** (weak duality). Put a price on each GPU byte of each cell and one on host bytes. A plan
uses no more than the cluster's totals of both, so its value is at most what its engines keep after
paying for theirs, plus what all bytes cost; and no engine keeps more than in its best case.

That holds at any prices; the least over those that are tried is taken: none, and for GPU bytes
those at which they would just be used up if every engine that is called for existed. What the bound
leaves out: that bytes lie on different GPUs and nodes, residues, and which GPU sets there are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.planning.berths import Berth
from placement.planning.estate import Estate
from placement.planning.uses import Floats, Use, each
from placement.snapshot import Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bidders:
    """All uses, one a row: what they earn at best, and what they take."""

    parked: Floats
    shed: Floats
    cost: Floats
    parked_bytes: Floats
    shed_bytes: Floats
    stays: NDArray[np.bool_]


def bound(estate: Estate) -> float:
    uses = [u for u in each(estate.called) if estate.places[u.spec.id]]
    if not uses:
        return 0.0
    room = sum((t.room for t in estate.rooms()), start=np.zeros(estate.cells))
    host = float(sum(max(estate.berths.host_free(n), 0) for n in estate.draft.nodes))
    host += sum(e.berth.host_bytes for e in estate.engines if not e.stays)
    there = {m: sum(e.berth.spec.id == m for e in estate.engines) for m in estate.called}
    staying = {e.use.key for e in estate.engines if e.stays and e.use is not None}
    found = []
    for prices in (np.zeros_like(room), _clearing_prices(uses, room)):
        bidders = _bidders(uses, there, staying, prices)
        found.append(float((prices * room).sum()) + _at_best_host_price(bidders, host))
    return min(found)


def _clearing_prices(uses: list[Use], room: Floats) -> Floats:
    """In each cell what the first one saves per byte that would not get all its bytes."""
    per_byte = np.zeros((len(uses), len(room)))
    wanted = np.zeros_like(per_byte)
    for row, use in enumerate(uses):
        taken = use.spec.gpus * use.bytes_per_gpu
        per_byte[row, use.cells] = use.parked / taken
        wanted[row, use.cells] = taken
    order = np.argsort(-per_byte, axis=0, kind="stable")
    used = np.cumsum(np.take_along_axis(wanted, order, axis=0), axis=0)
    over = used > room
    first = np.take_along_axis(order, np.argmax(over, axis=0)[None], axis=0)
    prices: Floats = np.take_along_axis(per_byte, first, axis=0)[0]
    return np.where(over.any(axis=0), prices, 0.0)


def _bidders(
    uses: list[Use], there: dict[str, int], staying: set[tuple[str, int]], prices: Floats
) -> _Bidders:
    def earned(use: Use, rests: Rung) -> float:
        saved = use.saved(rests, exists=use.count <= there[use.spec.id])
        pays = prices[use.cells] * (use.spec.gpus * use.bytes_per_gpu)
        return float(np.maximum(saved - pays, 0.0).sum())

    def taken(use: Use, rests: Rung) -> float:
        return float(Berth(use.spec, "", (), rests).host_bytes)

    return _Bidders(
        parked=np.array([earned(u, Rung.PARKED) for u in uses]),
        shed=np.array([earned(u, Rung.SHED) for u in uses]),
        cost=np.array([0.0 if u.count <= there[u.spec.id] else u.cost for u in uses]),
        parked_bytes=np.array([taken(u, Rung.PARKED) for u in uses]),
        shed_bytes=np.array([taken(u, Rung.SHED) for u in uses]),
        stays=np.array([u.key in staying for u in uses]),
    )


def _at_best_host_price(b: _Bidders, host: float) -> float:
    """It is convex in the price, and bends where an engine comes, goes or gives up its weights."""
    parked, shed = b.parked - b.cost, b.shed - b.cost
    bends = [parked / b.parked_bytes, shed / b.shed_bytes]
    bends.append((parked - shed) / np.maximum(b.parked_bytes - b.shed_bytes, 1.0))
    prices = np.unique(np.maximum(np.concatenate([np.zeros(1), *bends]), 0.0))[:, None]
    best = np.maximum(parked - prices * b.parked_bytes, shed - prices * b.shed_bytes)
    each_one = np.where(b.stays, b.parked, np.maximum(best, 0.0))
    return float((each_one.sum(axis=1) + prices[:, 0] * host).min())
