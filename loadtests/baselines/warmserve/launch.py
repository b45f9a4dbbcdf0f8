"""Which GPUs a new instance takes (4.6), and whom it drops there. Pure.

In: books, a model. Out: a `Choice`, or None where no GPUs are free; victims. Never: acts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.baselines.warmserve.books import INSTANCE, Books, Copy, Doing, NodeBook
from placement.catalog import ModelSpec, World
from placement.edges import footprint_bytes, gpu_bytes
from placement.snapshot import Rung


@dataclass(frozen=True, slots=True)
class Choice:
    """Where the instance will run. `copy`: the replica that is resident, loading or asleep there;
    without one it is a miss."""

    node_id: str
    gpu_ids: tuple[int, ...]
    copy: Copy | None


def choose(
    books: Books, spec: ModelSpec, specs: Mapping[str, ModelSpec], *, by_count: bool = True
) -> Choice | None:
    """Resident, else loading, else (world S) asleep, else GPUs that the fewest prewarmed replicas
    touch; without placement (`by_count`) the first free ones."""
    for doing in (Doing.RESIDENT, Doing.LOADING, Doing.ASLEEP):
        for book in books.values():
            for copy in book.copies:
                mine = copy.model_id == spec.id and copy.doing is doing
                if mine and _can_launch(book, copy, spec, specs):
                    return Choice(book.node_id, copy.gpu_ids, copy)
    for book in books.values():
        gpu_ids = _least_touched(book, spec, by_count=by_count)
        if gpu_ids is not None:
            return Choice(book.node_id, gpu_ids, None)
    return None


def steps_down(
    book: NodeBook, specs: Mapping[str, ModelSpec], spec: ModelSpec, own: Copy
) -> dict[str, Rung | None] | None:
    """World S: neighbours that step down so that `own` gets its whole footprint; None if they
    cannot give it.

    Weights are dropped, as WarmServe drops them, but the engine stays (shed); engines end where
    what they keep is in the way, sleeping ones first.
    """
    need = footprint_bytes(spec) - (gpu_bytes(spec, own.holds) if own.holds is not None else 0)
    left = {g: book.room[g] - need for g in own.gpu_ids}
    steps: dict[str, Rung | None] = {}
    idle = [c for c in book.beside(own.replica_id, own.gpu_ids) if c.doing not in INSTANCE]
    for copy in idle:
        if copy.doing is Doing.RESIDENT:
            steps[copy.replica_id] = Rung.SHED
            _give(left, copy, specs[copy.model_id].weights_per_gpu_bytes)
    for copy in sorted(idle, key=lambda c: c.doing is not Doing.ASLEEP):
        if any(left.get(g, 0) < 0 for g in copy.gpu_ids):
            steps[copy.replica_id] = None
            _give(left, copy, gpu_bytes(specs[copy.model_id], Rung.SHED))
    return steps if min(left.values()) >= 0 else None


def _give(left: dict[int, int], copy: Copy, given: int) -> None:
    for g in copy.gpu_ids:
        if g in left:
            left[g] += given


def _can_launch(
    book: NodeBook, copy: Copy, spec: ModelSpec, specs: Mapping[str, ModelSpec]
) -> bool:
    """No instance runs there. World S: nothing is in transition there either, and the neighbours
    can give the room."""
    beside = book.beside(copy.replica_id, copy.gpu_ids)
    if any(c.doing in INSTANCE for c in beside):
        return False
    if spec.mechanism.world is World.W:
        return True
    if any(c.moving for c in beside):
        return False
    return steps_down(book, specs, spec, copy) is not None


def _least_touched(book: NodeBook, spec: ModelSpec, *, by_count: bool) -> tuple[int, ...] | None:
    touched = dict.fromkeys(range(len(book.free)), 0)
    for copy in book.copies:
        barred = copy.doing in INSTANCE or (spec.mechanism.world is World.S and copy.moving)
        for g in copy.gpu_ids:
            if barred:
                touched.pop(g, None)
            elif g in touched and copy.doing is Doing.RESIDENT:
                touched[g] += 1
    if len(touched) < spec.gpus:
        return None
    ranked = sorted(touched, key=lambda g: (touched[g] if by_count else 0, g))
    return tuple(sorted(ranked[: spec.gpus]))
