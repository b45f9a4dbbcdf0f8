"""Where missing replicas go: GPU sets that nest or are disjoint, the worthy ones kept apart (4.3).

In: free bytes by GPU, replicas with scores, missing replicas. Out: loads to begin. Never: evicts
anything to make room.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

SLOTS_PER_GPU = 30


def mask_of(gpu_ids: Iterable[int]) -> int:
    return sum(1 << g for g in gpu_ids)


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica whose weights are resident or loading, and what it is worth."""

    model_id: str
    gpu_ids: tuple[int, ...]
    score: float
    mask: int


@dataclass(slots=True)
class Site:
    """One node as the placement fills it up."""

    node_id: str
    free: list[int]
    placed: list[Placed]


@dataclass(frozen=True, slots=True)
class Missing:
    model_id: str
    gpus: int
    score: float
    bytes_per_gpu: int
    """The least that a GPU must have free to be looked at."""


@dataclass(frozen=True, slots=True)
class Load:
    model_id: str
    node_id: str
    gpu_ids: tuple[int, ...]


Cost = Callable[[str, str, tuple[int, ...]], int | None]
"""Model, node, GPU set: bytes that a load takes of each GPU there; None: it cannot begin there."""


def place(missing: Iterable[Missing], sites: Sequence[Site], cost: Cost) -> list[Load]:
    """The worthiest first. Each finds the room and the replicas that the ones before it left."""
    loads = []
    for want in sorted(missing, key=lambda m: -m.score):
        found = _best_set(want, sites, cost)
        if found is None:
            continue
        site, gpu_ids, taken = found
        put(site, want, gpu_ids, taken)
        loads.append(Load(want.model_id, site.node_id, gpu_ids))
    return loads


def put(site: Site, want: Missing, gpu_ids: tuple[int, ...], taken: int) -> None:
    """Deduct the bytes; from now on it constrains whoever comes next."""
    for g in gpu_ids:
        site.free[g] -= taken
    site.placed.append(Placed(want.model_id, gpu_ids, want.score, mask_of(gpu_ids)))


def candidates(site: Site, want: Missing) -> list[int]:
    """GPUs with room for this model's share, and a slot."""
    used = [0] * len(site.free)
    for replica in site.placed:
        for g in replica.gpu_ids:
            used[g] += 1
    return [
        g
        for g, free in enumerate(site.free)
        if free >= want.bytes_per_gpu and used[g] < SLOTS_PER_GPU
    ]


def _best_set(
    want: Missing, sites: Sequence[Site], cost: Cost
) -> tuple[Site, tuple[int, ...], int] | None:
    """Where it would be the top one, and hurts least; else as the least harmful guest."""
    best_key, best = (True, float("inf")), None
    for site in sites:
        for gpu_ids in combinations(candidates(site, want), want.gpus):
            worth = touched(site, want.model_id, gpu_ids)
            if worth is None:
                continue
            key = (max(worth, default=-1.0) >= want.score, sum(worth))
            if best is not None and key >= best_key:
                continue
            taken = cost(want.model_id, site.node_id, gpu_ids)
            if taken is None or any(site.free[g] < taken for g in gpu_ids):
                continue
            best_key, best = key, (site, gpu_ids, taken)
            if key == (False, 0.0):
                return best
    return best


def touched(site: Site, model_id: str, gpu_ids: tuple[int, ...]) -> list[float] | None:
    """Scores of the replicas that a set touches; None where it may not be taken: it must equal,
    contain or lie inside the set of each, and hold the model only once."""
    mask, gpus, worth = mask_of(gpu_ids), len(gpu_ids), []
    for replica in site.placed:
        if not replica.mask & mask:
            continue
        theirs = len(replica.gpu_ids)
        outside = mask & ~replica.mask if theirs >= gpus else replica.mask & ~mask
        if outside or replica.model_id == model_id:
            return None
        worth.append(replica.score)
    return worth


def round_robin(
    missing: Sequence[tuple[Missing, int]], sites: Sequence[Site], cost: Cost
) -> list[Load]:
    """Without placement (4.10): one replica of each model in turn, on the first GPUs that fit and
    do not hold it. The first model whose count is used up, or that does not fit, ends it."""
    loads: list[Load] = []
    left = [count for _, count in missing]
    while True:
        for k, (want, _) in enumerate(missing):
            found = _first_fit(want, sites, cost) if left[k] > 0 else None
            if found is None:
                return loads
            site, gpu_ids, taken = found
            put(site, want, gpu_ids, taken)
            loads.append(Load(want.model_id, site.node_id, gpu_ids))
            left[k] -= 1
        if not missing:
            return loads


def _first_fit(
    want: Missing, sites: Sequence[Site], cost: Cost
) -> tuple[Site, tuple[int, ...], int] | None:
    for site in sites:
        holding = 0
        for replica in site.placed:
            holding |= replica.mask if replica.model_id == want.model_id else 0
        fitting = [g for g in candidates(site, want) if not holding >> g & 1]
        for gpu_ids in combinations(fitting, want.gpus):
            taken = cost(want.model_id, site.node_id, gpu_ids)
            if taken is not None and all(site.free[g] >= taken for g in gpu_ids):
                return site, gpu_ids, taken
    return None
