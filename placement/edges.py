"""The rung graph of stock vLLM (world S): legal edges, their cost and what they hold meanwhile.

In: a `ModelSpec` and where its weights lie. Out: `Edge` rows and footprints in bytes. The planner,
the agent's ledger and the emulated engine read the same rows. Never: reads a clock.
"""

from collections.abc import Iterator
from enum import StrEnum

from placement import constants as c
from placement.catalog import Frozen, Links, ModelSpec
from placement.snapshot import Lack, ReplicaState, Rung, WeightsAt

GB = 1_000_000_000
US = 1_000_000


class Link(StrEnum):
    OBJECT_STORE = "object_store"
    DISK = "disk"
    LOADER = "loader"
    H2D = "h2d"
    D2H = "d2h"


class Transfer(Frozen, frozen=True, kw_only=True):
    """`streams` parallel streams of `bytes_per_stream` over one kind of link of the node."""

    link: Link
    bytes_per_stream: int
    streams: int = 1


class Precondition(StrEnum):
    """What must hold before a transition begins. The ledger checks it, the planner provides it."""

    DRAINED = "drained"
    FOOTPRINT_FREE = "footprint_free"
    GROWTH_FREE = "growth_free"
    HOST_MEMORY_FREE = "host_memory_free"
    NO_START_BESIDE = "no_start_beside"
    NOBODY_FREES_BESIDE = "nobody_frees_beside"


class Edge(Frozen, frozen=True, kw_only=True):
    """One transition: a fixed time, then transfers one after the other.

    `at` and `to` name a rung or a place of the weights. Held bytes are the most it holds before it
    ends: on each of its GPUs, and on the host.
    """

    fixed_us: int
    transfers: tuple[Transfer, ...] = ()
    exclusive_gpu: bool = False
    world: str = "S"
    at: str = ""
    to: str = ""
    held_gpu_bytes: int = 0
    held_host_bytes: int = 0
    preconditions: tuple[Precondition, ...] = ()
    source: str = ""

    @property
    def bytes_by_link(self) -> dict[Link, int]:
        """All bytes that cross each kind of link, whatever the number of streams."""
        found: dict[Link, int] = {}
        for t in self.transfers:
            found[t.link] = found.get(t.link, 0) + t.bytes_per_stream * t.streams
        return found


DEFAULT_LINKS = Links(
    h2d_stream=int(c.H2D_STREAM.value),
    h2d_total=int(c.H2D_TOTAL.value),
    d2h_stream=int(c.D2H_STREAM.value),
    d2h_total=int(c.D2H_TOTAL.value),
    loader_stream=int(c.LOADER_STREAM.value),
    loader_total=int(c.LOADER_TOTAL.value),
    disk=int(c.DISK.value),
    object_store=int(c.OBJECT_STORE.value),
)

LEGAL_STEPS: frozenset[tuple[Rung, Rung]] = frozenset(
    {
        (Rung.SERVING, Rung.WARM),
        (Rung.SERVING, Rung.PARKED),
        (Rung.SERVING, Rung.SHED),
        (Rung.WARM, Rung.SERVING),
        (Rung.WARM, Rung.PARKED),
        (Rung.WARM, Rung.SHED),
        (Rung.PARKED, Rung.WARM),
        (Rung.PARKED, Rung.SERVING),
        (Rung.SHED, Rung.WARM),
        (Rung.SHED, Rung.SERVING),
    }
)
"""Parked → shed is not one: stock vLLM answers 200 and does nothing."""


def legal(replica: ReplicaState, to: Rung) -> bool:
    """Whether a step is an edge of the graph, and one that this replica's engine offers."""
    return (replica.rung, to) in LEGAL_STEPS and lack_of(replica, to) is None


def lack_of(replica: ReplicaState, to: Rung) -> Lack | None:
    return next((x for x in replica.lacks if (x.at, x.to) == (replica.rung, to)), None)


def gpu_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Bytes a replica holds on each of its GPUs while it stands on `rung`."""
    if not spec.on_gpu:
        return 0
    if spec.on_cpu:
        return footprint_bytes(spec)  # whatever the rung: a sleep on the CPU frees nothing
    match rung:
        case Rung.SHED | Rung.PARKED:
            return spec.residue_bytes
        case Rung.WARM:
            return spec.residue_bytes + spec.weights_per_gpu_bytes
        case Rung.SERVING:
            return footprint_bytes(spec)


def footprint_bytes(spec: ModelSpec) -> int:
    """Bytes a start needs free on each GPU for as long as it takes, and serving holds after it."""
    if spec.on_cpu:
        return spec.weights_per_gpu_bytes + spec.kv_cache_bytes
    activations = int(c.ACTIVATIONS_BYTES.value)
    return spec.residue_bytes + spec.weights_per_gpu_bytes + spec.kv_cache_bytes + activations


def host_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Host memory of a replica on `rung`: process RSS, and pinned weights while parked.

    The pinned allocator rounds each rank's block up to a power of two.
    """
    if spec.on_cpu:
        return int(c.VLLM_CPU_RSS_BYTES.value)
    rss = int(c.ENGINE_RSS_BYTES.value) if spec.on_gpu else spec.weights_bytes
    if rung is not Rung.PARKED or not spec.on_gpu:
        return rss
    return rss + spec.gpus * power_of_two_above(spec.weights_per_gpu_bytes)


def power_of_two_above(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _sources(*figures: c.Graded) -> str:
    """Where the figures come from, each source once behind its grade."""
    return "; ".join(dict.fromkeys(f"{f.grade} {f.source}" for f in figures))


_START_NEEDS = (
    Precondition.FOOTPRINT_FREE,
    Precondition.HOST_MEMORY_FREE,
    Precondition.NO_START_BESIDE,
    Precondition.NOBODY_FREES_BESIDE,
)


def _step_needs(at: Rung, to: Rung) -> Iterator[Precondition]:
    if at is Rung.SERVING:
        yield Precondition.DRAINED
    yield Precondition.GROWTH_FREE if to > at else Precondition.NO_START_BESIDE
    if to is Rung.PARKED:
        yield Precondition.HOST_MEMORY_FREE


_STEP_NEEDS = {(at, to): tuple(_step_needs(at, to)) for at, to in LEGAL_STEPS}
_GPU_START_SOURCE = _sources(
    c.START_FIXED_S,
    c.START_PER_LAYER_S,
    c.START_PROFILE_S,
    c.START_TP_S,
    c.LOADER_STREAM,
    c.DISK,
    c.OBJECT_STORE,
)
_CPU_START_SOURCE = _sources(c.CPU_START_S)
_VLLM_CPU_START_SOURCE = _sources(c.VLLM_CPU_START_S)
_VLLM_CPU_STEP_SOURCE = _sources(c.VLLM_CPU_STEP_S)
_LEAVING_FIGURES: dict[Rung, tuple[c.Graded, ...]] = {
    Rung.SHED: (c.WAKE_FIXED_S, c.RELOAD_FIXED_S, c.LOADER_STREAM),
    Rung.PARKED: (c.WAKE_FIXED_S, c.H2D_STREAM),
    Rung.WARM: (),
    Rung.SERVING: (c.SLEEP_FIXED_S, c.UNMAP_PER_GB_S),
}
_LANDING_FIGURES: dict[Rung, tuple[c.Graded, ...]] = {
    Rung.SHED: (c.UNMAP_PER_GB_S,),
    Rung.PARKED: (c.D2H_STREAM,),
    Rung.WARM: (),
    Rung.SERVING: (c.MAP_PER_GB_S,),
}
_STEP_SOURCES = {
    (at, to): _sources(*_LEAVING_FIGURES[at], *_LANDING_FIGURES[to]) for at, to in LEGAL_STEPS
}


def start_edge(spec: ModelSpec, weights_at: WeightsAt) -> Edge:
    """A fresh engine process up to serving, from wherever the weights lie."""
    at, to = weights_at.name.lower(), Rung.SERVING.name.lower()
    if not spec.on_gpu:
        return Edge(
            fixed_us=int(c.CPU_START_S.value * US),
            at=at,
            to=to,
            held_host_bytes=host_bytes(spec, Rung.SERVING),
            preconditions=(Precondition.HOST_MEMORY_FREE,),
            source=_CPU_START_SOURCE,
        )
    fetch = fetch_transfers(spec, weights_at, WeightsAt.HOST)
    fixed_s = c.VLLM_CPU_START_S.value if spec.on_cpu else _gpu_start_s(spec)
    return Edge(
        fixed_us=int(fixed_s * US),
        transfers=fetch if spec.on_cpu else (*fetch, _load(spec)),
        exclusive_gpu=True,
        at=at,
        to=to,
        held_gpu_bytes=footprint_bytes(spec),
        held_host_bytes=host_bytes(spec, Rung.SERVING),
        preconditions=_START_NEEDS,
        source=_VLLM_CPU_START_SOURCE if spec.on_cpu else _GPU_START_SOURCE,
    )


def _gpu_start_s(spec: ModelSpec) -> float:
    """Everything of a start on a GPU but the bytes."""
    return (
        c.START_FIXED_S.value
        + c.START_PER_LAYER_S.value * spec.layers
        + c.START_PROFILE_S.value
        + c.START_PROFILE_PER_GB_S.value * spec.weights_per_gpu_bytes / GB
        + (c.START_TP_S.value if spec.gpus > 1 else 0.0)
    )


def fetch_transfers(spec: ModelSpec, at: WeightsAt, to: WeightsAt) -> tuple[Transfer, ...]:
    """What has to cross which link to bring weights from `at` to `to`."""
    legs = []
    if at is WeightsAt.OBJECT and to > WeightsAt.OBJECT:
        legs.append(Transfer(link=Link.OBJECT_STORE, bytes_per_stream=spec.weights_bytes))
    if at is WeightsAt.DISK and to is WeightsAt.HOST:
        legs.append(Transfer(link=Link.DISK, bytes_per_stream=spec.weights_bytes))
    return tuple(legs)


def step_edge(spec: ModelSpec, at: Rung, to: Rung) -> Edge:
    """Between two rungs of a living engine. Only for pairs in `LEGAL_STEPS`."""
    assert (at, to) in LEGAL_STEPS, f"{at.name} → {to.name} is no edge of the rung graph"
    fixed_s, transfers = (c.VLLM_CPU_STEP_S.value, ()) if spec.on_cpu else _step_cost(spec, at, to)
    return Edge(
        fixed_us=int(fixed_s * US),
        transfers=transfers,
        at=at.name.lower(),
        to=to.name.lower(),
        held_gpu_bytes=max(gpu_bytes(spec, at), gpu_bytes(spec, to)),
        held_host_bytes=max(host_bytes(spec, at), host_bytes(spec, to)),
        preconditions=_STEP_NEEDS[at, to],
        source=_VLLM_CPU_STEP_SOURCE if spec.on_cpu else _STEP_SOURCES[at, to],
    )


def _step_cost(spec: ModelSpec, at: Rung, to: Rung) -> tuple[float, tuple[Transfer, ...]]:
    map_kv_s = c.MAP_PER_GB_S.value * spec.kv_cache_bytes / GB
    weights_gb = spec.weights_per_gpu_bytes / GB
    fixed_s, transfers = 0.0, []
    if at is Rung.PARKED:
        fixed_s += c.WAKE_FIXED_S.value
        transfers.append(_copy(spec, Link.H2D))
    if at is Rung.SHED:
        fixed_s += c.WAKE_FIXED_S.value + c.RELOAD_FIXED_S.value
        transfers.append(_load(spec))
    if to is Rung.SERVING:
        fixed_s += map_kv_s
    if at is Rung.SERVING:
        fixed_s += c.SLEEP_FIXED_S.value + c.UNMAP_PER_GB_S.value * spec.kv_cache_bytes / GB
    if to is Rung.PARKED:
        transfers.append(_copy(spec, Link.D2H))
    if to is Rung.SHED:
        fixed_s += c.UNMAP_PER_GB_S.value * weights_gb
    return fixed_s, tuple(transfers)


def stream_rate(links: Links, link: Link, streams: int) -> float:
    """Bytes per second each of `streams` concurrent streams of a node gets on this link."""
    match link:
        case Link.OBJECT_STORE:
            return links.object_store / streams
        case Link.DISK:
            return links.disk / streams
        case Link.LOADER:
            return min(links.loader_stream, links.loader_total / streams)
        case Link.H2D:
            return min(links.h2d_stream, links.h2d_total / streams)
        case Link.D2H:
            return min(links.d2h_stream, links.d2h_total / streams)


def edge_us(edge: Edge, links: Links = DEFAULT_LINKS) -> int:
    """Duration on an otherwise idle node, in microseconds."""
    moving = sum(t.bytes_per_stream / stream_rate(links, t.link, t.streams) for t in edge.transfers)
    return edge.fixed_us + int(moving * US)


def climb_us(spec: ModelSpec, at: Rung | WeightsAt, links: Links = DEFAULT_LINKS) -> int:
    """From a rung, or from no engine at all, to serving on an idle node, in microseconds."""
    if isinstance(at, WeightsAt):
        return edge_us(start_edge(spec, at), links)
    if at is Rung.SERVING:
        return 0
    return edge_us(step_edge(spec, at, Rung.SERVING), links)


def _load(spec: ModelSpec) -> Transfer:
    return Transfer(
        link=Link.LOADER, bytes_per_stream=spec.weights_per_gpu_bytes, streams=spec.gpus
    )


def _copy(spec: ModelSpec, link: Link) -> Transfer:
    return Transfer(link=link, bytes_per_stream=spec.weights_per_gpu_bytes, streams=spec.gpus)
