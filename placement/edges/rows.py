"""What a row of the edge table says, and how long it takes on given links. Pure.

In: transfers, node links. Out: `Edge`s, rates, durations. Never: knows a world's mechanism
(`stock`, `shared`), reads a clock.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

import msgspec

from placement import constants as c
from placement.catalog import Frozen, Links, ModelSpec, World
from placement.snapshot import WeightsAt

GB = 1_000_000_000
US = 1_000_000
MEMO_MAX = 8192
"""Rows kept per function: some hundred models, each from and to everywhere."""

P = ParamSpec("P")
R = TypeVar("R")


def memo(of: Callable[P, R]) -> Callable[P, R]:
    """Specs and links are frozen, so a figure of theirs is worked out once.

    Typed, for `Rung.PARKED` and `WeightsAt.HOST` are equal as numbers.
    """
    return cast(Callable[P, R], lru_cache(maxsize=MEMO_MAX, typed=True)(of))


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
    NOBODY_SERVES_BESIDE = "nobody_serves_beside"


class Edge(Frozen, frozen=True, kw_only=True, cache_hash=True):
    """One transition: a fixed time, then transfers one after the other.

    `at` and `to` name a rung or a place of the weights. Held bytes are the most it holds before it
    ends: on each of its GPUs, and on the host.
    """

    fixed_us: int
    transfers: tuple[Transfer, ...] = ()
    exclusive_gpu: bool = False
    world: World = World.S
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

SHARED_LINKS = msgspec.structs.replace(
    DEFAULT_LINKS,
    h2d_stream=int(c.PINNED_H2D_STREAM.value),
    h2d_total=int(c.PINNED_H2D_TOTAL.value),
)
"""Of a node in world W, whose one copy of each model is pinned."""

LINKS = {World.S: DEFAULT_LINKS, World.W: SHARED_LINKS}


def sources(*figures: c.Graded) -> str:
    """Where the figures come from, each source once behind its grade."""
    return "; ".join(dict.fromkeys(f"{f.grade} {f.source}" for f in figures))


def fetch_transfers(spec: ModelSpec, at: WeightsAt, to: WeightsAt) -> tuple[Transfer, ...]:
    """What has to cross which link to bring weights from `at` to `to`."""
    legs = []
    if at is WeightsAt.OBJECT and to > WeightsAt.OBJECT:
        legs.append(Transfer(link=Link.OBJECT_STORE, bytes_per_stream=spec.weights_bytes))
    if at is WeightsAt.DISK and to is WeightsAt.HOST:
        legs.append(Transfer(link=Link.DISK, bytes_per_stream=spec.weights_bytes))
    return tuple(legs)


def rank_transfer(spec: ModelSpec, link: Link) -> Transfer:
    """Each GPU's share of the weights, all of them side by side."""
    return Transfer(link=link, bytes_per_stream=spec.weights_per_gpu_bytes, streams=spec.gpus)


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


def total_rate(links: Links, link: Link) -> int:
    """Bytes per second that all streams of a node together may move over this kind of link."""
    match link:
        case Link.OBJECT_STORE:
            return links.object_store
        case Link.DISK:
            return links.disk
        case Link.LOADER:
            return links.loader_total
        case Link.H2D:
            return links.h2d_total
        case Link.D2H:
            return links.d2h_total


@memo
def edge_us(edge: Edge, links: Links | None = None) -> int:
    """Duration on an otherwise idle node, in microseconds; without links on its world's usual."""
    on = links or LINKS[edge.world]
    moving = sum(t.bytes_per_stream / stream_rate(on, t.link, t.streams) for t in edge.transfers)
    return edge.fixed_us + int(moving * US)
