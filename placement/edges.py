"""The rung graph of stock vLLM (world S): legal edges, their cost and what they hold meanwhile.

In: a `ModelSpec` and where its weights lie. Out: `Edge` rows and footprints in bytes. The planner,
the agent's ledger and the emulated engine read the same rows. Never: reads a clock.
"""

from enum import StrEnum

from placement import constants as c
from placement.catalog import Frozen, Links, ModelSpec
from placement.snapshot import Rung, WeightsAt

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


class Edge(Frozen, frozen=True, kw_only=True):
    """One transition: a fixed time, then transfers one after the other."""

    fixed_us: int
    transfers: tuple[Transfer, ...] = ()
    exclusive_gpu: bool = False


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


def gpu_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Bytes a replica holds on each of its GPUs while it stands on `rung`."""
    if not spec.on_gpu:
        return 0
    match rung:
        case Rung.SHED | Rung.PARKED:
            return spec.residue_bytes
        case Rung.WARM:
            return spec.residue_bytes + spec.weights_per_gpu_bytes
        case Rung.SERVING:
            return footprint_bytes(spec)


def footprint_bytes(spec: ModelSpec) -> int:
    """Bytes a start needs free on each GPU for as long as it takes, and serving holds after it."""
    activations = int(c.ACTIVATIONS_BYTES.value)
    return spec.residue_bytes + spec.weights_per_gpu_bytes + spec.kv_cache_bytes + activations


def host_bytes(spec: ModelSpec, rung: Rung) -> int:
    """Host memory of a replica on `rung`: process RSS, and pinned weights while parked.

    The pinned allocator rounds each rank's block up to a power of two.
    """
    rss = int(c.ENGINE_RSS_BYTES.value) if spec.on_gpu else spec.weights_bytes
    if rung is not Rung.PARKED or not spec.on_gpu:
        return rss
    return rss + spec.gpus * power_of_two_above(spec.weights_per_gpu_bytes)


def power_of_two_above(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def start_edge(spec: ModelSpec, weights_at: WeightsAt) -> Edge:
    """A fresh engine process up to serving, from wherever the weights lie."""
    if not spec.on_gpu:
        return Edge(fixed_us=int(c.CPU_START_S.value * US))
    weights_gb = spec.weights_per_gpu_bytes / GB
    fixed_s = (
        c.START_FIXED_S.value
        + c.START_PER_LAYER_S.value * spec.layers
        + c.START_PROFILE_S.value
        + c.START_PROFILE_PER_GB_S.value * weights_gb
        + (c.START_TP_S.value if spec.gpus > 1 else 0.0)
    )
    return Edge(
        fixed_us=int(fixed_s * US),
        transfers=(*fetch_transfers(spec, weights_at, WeightsAt.HOST), _load(spec)),
        exclusive_gpu=True,
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
    return Edge(fixed_us=int(fixed_s * US), transfers=tuple(transfers))


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
