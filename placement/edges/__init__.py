"""The rung graph of both worlds: legal edges, their cost and what they hold meanwhile.

In: a `ModelSpec`, whose `mechanism.world` picks the table (`stock`, `shared`), and where its
weights lie. Out: `Edge` rows and footprints in bytes. Planner, ledger, emulated engine and
simulator read the same rows. Never: reads a clock.
"""

from placement.catalog import Links, ModelSpec, World
from placement.edges import shared, stock
from placement.edges.rows import (
    DEFAULT_LINKS,
    LINKS,
    SHARED_LINKS,
    Edge,
    Link,
    Precondition,
    Transfer,
    edge_us,
    fetch_transfers,
    memo,
    stream_rate,
    total_rate,
)
from placement.edges.shared import pinned_bytes
from placement.edges.stock import power_of_two_above
from placement.snapshot import Lack, ReplicaState, Rung, WeightsAt

__all__ = [
    "DEFAULT_LINKS",
    "LINKS",
    "SHARED_LINKS",
    "Edge",
    "Link",
    "Precondition",
    "Transfer",
    "climb_us",
    "edge_us",
    "fetch_transfers",
    "footprint_bytes",
    "gpu_bytes",
    "host_bytes",
    "lack_of",
    "legal",
    "legal_starts",
    "legal_steps",
    "memo",
    "pinned_bytes",
    "power_of_two_above",
    "resting_rungs",
    "return_us",
    "shared_copies",
    "start_edge",
    "step_edge",
    "stream_rate",
    "total_rate",
]


def shared_copies(spec: ModelSpec) -> bool:
    """World W: all GPUs of a node load from one pinned copy, and loads and ends cost no process."""
    return spec.mechanism.world is World.W


def legal_steps(spec: ModelSpec) -> frozenset[tuple[Rung, Rung]]:
    """Pairs of rungs between which a replica of this model can go, engine versions apart."""
    return shared.STEPS if shared_copies(spec) else stock.STEPS


def legal_starts(spec: ModelSpec) -> tuple[Rung, ...]:
    """Where a start may end."""
    return (Rung.WARM, Rung.SERVING) if shared_copies(spec) else (Rung.SERVING,)


def resting_rungs(spec: ModelSpec) -> tuple[Rung, ...]:
    """Where a drained replica rests off its GPUs until asked for again, the first choice first."""
    return shared.RESTING if shared_copies(spec) else stock.RESTING


def legal(spec: ModelSpec, replica: ReplicaState, to: Rung) -> bool:
    """Whether a step is an edge of the graph, and one that this replica's engine offers."""
    return (replica.rung, to) in legal_steps(spec) and lack_of(replica, to) is None


def lack_of(replica: ReplicaState, to: Rung) -> Lack | None:
    return next((x for x in replica.lacks if (x.at, x.to) == (replica.rung, to)), None)


@memo
def gpu_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Bytes a replica holds on each of its GPUs while it stands on `rung`."""
    return shared.gpu_bytes(spec, rung) if shared_copies(spec) else stock.gpu_bytes(spec, rung)


@memo
def footprint_bytes(spec: ModelSpec) -> int:
    """Bytes a start needs free on each GPU for as long as it takes, and serving holds after it."""
    return shared.footprint_bytes(spec) if shared_copies(spec) else stock.footprint_bytes(spec)


@memo
def host_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Host memory that is a replica's own while it stands on `rung`."""
    return shared.host_bytes(spec, rung) if shared_copies(spec) else stock.host_bytes(spec, rung)


@memo
def start_edge(spec: ModelSpec, weights_at: WeightsAt, to: Rung = Rung.SERVING) -> Edge:
    """A new replica up to `to`, from wherever the weights lie. Only for one of `legal_starts`."""
    assert to in legal_starts(spec), f"in world {spec.mechanism.world} no start ends {to.name}"
    if shared_copies(spec):
        return shared.start_edge(spec, weights_at, to)
    return stock.start_edge(spec, weights_at)


@memo
def step_edge(spec: ModelSpec, at: Rung, to: Rung) -> Edge:
    """Between two rungs of one replica. Only for pairs in `legal_steps`."""
    assert (at, to) in legal_steps(spec), f"{at.name} → {to.name} is no edge of the rung graph"
    if shared_copies(spec):
        return shared.step_edge(spec, at, to)
    return stock.step_edge(spec, at, to)


@memo
def climb_us(spec: ModelSpec, at: Rung | WeightsAt, links: Links | None = None) -> int:
    """From a rung, or from no engine at all, to serving on an idle node, in microseconds."""
    if isinstance(at, WeightsAt):
        return edge_us(start_edge(spec, at), links)
    if at is Rung.SERVING:
        return 0
    return edge_us(step_edge(spec, at, Rung.SERVING), links)


@memo
def return_us(spec: ModelSpec) -> int:
    """From where it rests once drained to serving again, on an idle node, in microseconds."""
    return climb_us(spec, next(iter(resting_rungs(spec)), WeightsAt.HOST))
