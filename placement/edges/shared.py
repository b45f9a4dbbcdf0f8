"""World W, WarmServe's mechanism: one pinned copy of each model per node, shared by all its GPUs.

In: a `ModelSpec` of a model on GPUs and where its weights lie. Out: rows and bytes. Never: reads a
clock. A pool of forked, eager engines waits on each node, and any of them takes any model on any
GPU set, so an engine is nothing that a replica has to keep: two rungs are left. A warm replica is
its weights on its GPUs, whole and in place, and nothing else. A serving one owns its GPUs wholly.
"""

from collections.abc import Iterable

from placement import constants as c
from placement.catalog import ModelSpec, World
from placement.edges.rows import (
    GB,
    US,
    Edge,
    Link,
    Precondition,
    fetch_transfers,
    rank_transfer,
    sources,
)
from placement.snapshot import Rung, WeightsAt

RESTING: tuple[Rung, ...] = ()
"""The pinned copy is there anyway, and an engine costs nothing to start."""

STEPS: frozenset[tuple[Rung, Rung]] = frozenset(
    {(Rung.SERVING, Rung.WARM), (Rung.WARM, Rung.SERVING)}
)


def gpu_bytes(spec: ModelSpec, rung: Rung) -> int:
    assert rung in (Rung.WARM, Rung.SERVING), f"world W has no rung {rung.name}"
    return footprint_bytes(spec) if rung is Rung.SERVING else spec.weights_per_gpu_bytes


def footprint_bytes(spec: ModelSpec) -> int:
    """`kv_cache_bytes` is meant to fill what weights and activations leave of a GPU."""
    activations = int(c.ACTIVATIONS_BYTES.value)
    return spec.weights_per_gpu_bytes + spec.kv_cache_bytes + activations


def host_bytes(_spec: ModelSpec, _rung: Rung) -> int:
    """None of its own: `pinned_bytes` of the node is there before any replica, and stays."""
    return 0


def pinned_bytes(specs: Iterable[ModelSpec]) -> int:
    """Host memory of the pinned copies that a node keeps of these models from its start on."""
    return sum(spec.weights_bytes for spec in specs)


_LOAD_FIGURES = (c.PINNED_H2D_STREAM, c.PINNED_H2D_TOTAL, c.GROUP_S, c.DISK, c.OBJECT_STORE)
_LAUNCH_FIGURES = (c.LAUNCH_S, c.MAP_PER_GB_S)
_LOAD_SOURCE = sources(*_LOAD_FIGURES)
_LAUNCH_SOURCE = sources(*_LAUNCH_FIGURES)
_START_SOURCE = sources(*_LOAD_FIGURES, *_LAUNCH_FIGURES)
_KEEP_SOURCE = sources(c.KEEP_WEIGHTS_S)


def start_edge(spec: ModelSpec, weights_at: WeightsAt, to: Rung) -> Edge:
    """A load up to warm, or a load and then a launch. Its fixed time follows its copies.

    On each GPU loads take turns, first come first served; they can be cancelled at any time.
    """
    serves = to is Rung.SERVING
    fetch = fetch_transfers(spec, weights_at, WeightsAt.HOST)
    room = Precondition.FOOTPRINT_FREE if serves else Precondition.GROWTH_FREE
    return Edge(
        fixed_us=_group_us(spec) + (_launch_us(spec) if serves else 0),
        transfers=(*fetch, rank_transfer(spec, Link.H2D)),
        exclusive_gpu=serves,
        world=World.W,
        at=weights_at.name.lower(),
        to=to.name.lower(),
        held_gpu_bytes=gpu_bytes(spec, to),
        held_host_bytes=host_bytes(spec, to),
        preconditions=(room, Precondition.NOBODY_SERVES_BESIDE) if serves else (room,),
        source=_START_SOURCE if serves else _LOAD_SOURCE,
    )


def step_edge(spec: ModelSpec, at: Rung, to: Rung) -> Edge:
    """A launch on weights that are there, or the end of one: its process dies, the weights stay."""
    launch = to is Rung.SERVING
    needs = (Precondition.GROWTH_FREE, Precondition.NOBODY_SERVES_BESIDE)
    return Edge(
        fixed_us=_launch_us(spec) if launch else int(c.KEEP_WEIGHTS_S.value * US),
        exclusive_gpu=launch,
        world=World.W,
        at=at.name.lower(),
        to=to.name.lower(),
        held_gpu_bytes=footprint_bytes(spec),
        held_host_bytes=host_bytes(spec, to),
        preconditions=needs if launch else (Precondition.DRAINED,),
        source=_LAUNCH_SOURCE if launch else _KEEP_SOURCE,
    )


def _group_us(spec: ModelSpec) -> int:
    return int(c.GROUP_S.value * US) if spec.gpus > 1 else 0


def _launch_us(spec: ModelSpec) -> int:
    """Mapping the KV cache costs nothing here where it goes on beside the first requests."""
    own_us = spec.mechanism.launch_us
    launch_us = int(c.LAUNCH_S.value * US) if own_us is None else own_us
    map_s = 0.0 if spec.mechanism.lazy_kv else c.MAP_PER_GB_S.value * spec.kv_cache_bytes / GB
    return launch_us + int(map_s * US)
