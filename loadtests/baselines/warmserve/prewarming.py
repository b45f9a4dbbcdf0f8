"""One prewarm pass: which loads to begin now (4.2 to 4.4). Pure.

In: books, instances, forecasts. Out: `Load`s. Never: evicts, acts.
"""

from collections.abc import Iterable, Mapping, Sequence

from loadtests.baselines.warmserve.books import (
    Books,
    Copy,
    Doing,
    NodeBook,
    share_bytes,
)
from loadtests.baselines.warmserve.counts import cold_s, needed, scores
from loadtests.baselines.warmserve.flags import Flags
from loadtests.baselines.warmserve.forecast import Forecast
from loadtests.baselines.warmserve.laminar import Load, Missing, Placed, Site, place, round_robin
from placement.catalog import ModelSpec, World
from placement.edges import footprint_bytes

LISTED = (Doing.RESIDENT, Doing.LOADING, Doing.DRAINING)
"""A draining instance leaves its weights behind."""


def loads(
    books: Books,
    specs: Sequence[ModelSpec],
    running: Mapping[str, int],
    forecasts: Mapping[str, Forecast],
    flags: Flags,
) -> list[Load]:
    """`running`: instances by model, those on their way included."""
    worth: dict[str, float] = {}
    missing: list[Missing] = []
    turns: list[tuple[Missing, int]] = []
    for spec in specs:
        expected = forecasts[spec.id]
        wanted = needed(expected, running.get(spec.id, 0))
        values = scores(wanted, expected, cold_s(spec))
        listed = _listed(books, spec, twice=flags.running_counts_twice)
        for k, copy in enumerate(listed):
            worth[copy.replica_id] = values[k] if k < len(values) else 0.0
        missing += [_missing(spec, value) for value in values[len(listed) :]]
        turns.append((_missing(spec, 0.0), wanted.count))
    sites = [_site(book, worth) for book in books.values()]
    cost = _Cost(books, {spec.id: spec for spec in specs})
    if flags.by_score:
        return place(missing, sites, cost.of)
    return round_robin(turns, sites, cost.of)


def _listed(books: Books, spec: ModelSpec, *, twice: bool) -> list[Copy]:
    doings = (*LISTED, Doing.RUNNING) if twice else LISTED
    copies = (copy for book in books.values() for copy in book.copies)
    return [c for c in copies if c.model_id == spec.id and c.doing in doings]


def _missing(spec: ModelSpec, score: float) -> Missing:
    """World W loads weights and nothing else. In world S a step up takes no more than that."""
    shared = spec.mechanism.world is World.W
    least = share_bytes(spec) if shared else spec.weights_per_gpu_bytes
    return Missing(spec.id, spec.gpus, score, least)


def _site(book: NodeBook, worth: Mapping[str, float]) -> Site:
    placed = [
        Placed(c.model_id, c.gpu_ids, worth.get(c.replica_id, 0.0), c.mask)
        for c in book.copies
        if c.doing in LISTED or c.doing is Doing.RUNNING
    ]
    return Site(book.node_id, list(book.free), placed)


class _Cost:
    """What a load takes of each GPU of a set, and whether it can begin there at all."""

    def __init__(self, books: Books, specs: Mapping[str, ModelSpec]) -> None:
        self._books = books
        self._specs = specs

    def of(self, model_id: str, node_id: str, gpu_ids: tuple[int, ...]) -> int | None:
        """World S: an engine that sleeps on exactly these GPUs steps up; else one is started, which
        needs its whole footprint free and nothing in transition beside it."""
        spec = self._specs[model_id]
        if spec.mechanism.world is World.W:
            return share_bytes(spec)
        beside = self._books[node_id].beside("", gpu_ids)
        mine = asleep(beside, model_id, gpu_ids)
        if mine is not None:
            return None if mine.moving else spec.weights_per_gpu_bytes
        if any(c.moving for c in beside):
            return None
        return footprint_bytes(spec)


def asleep(copies: Iterable[Copy], model_id: str, gpu_ids: tuple[int, ...]) -> Copy | None:
    """World S: this model's engine on exactly these GPUs, where it has one."""
    mine = (c for c in copies if c.model_id == model_id and c.gpu_ids == gpu_ids)
    return next(mine, None)
