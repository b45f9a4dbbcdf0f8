"""World S, stock vLLM: its legal steps, what they cost, and what each rung holds.

In: a `ModelSpec` and where its weights lie. Out: rows and bytes. Never: reads a clock.
"""

from collections.abc import Iterator

from placement import constants as c
from placement.catalog import ModelSpec
from placement.edges.rows import (
    GB,
    US,
    Edge,
    Link,
    Precondition,
    Transfer,
    fetch_transfers,
    rank_transfer,
    sources,
)
from placement.snapshot import Rung, WeightsAt

RESTING = (Rung.PARKED, Rung.SHED)

STEPS: frozenset[tuple[Rung, Rung]] = frozenset(
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


_STEP_NEEDS = {(at, to): tuple(_step_needs(at, to)) for at, to in STEPS}
_GPU_START_SOURCE = sources(
    c.START_FIXED_S,
    c.START_PER_LAYER_S,
    c.START_PROFILE_S,
    c.START_TP_S,
    c.LOADER_STREAM,
    c.DISK,
    c.OBJECT_STORE,
)
_CPU_START_SOURCE = sources(c.CPU_START_S)
_VLLM_CPU_START_SOURCE = sources(c.VLLM_CPU_START_S)
_VLLM_CPU_STEP_SOURCE = sources(c.VLLM_CPU_STEP_S)
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
    (at, to): sources(*_LEAVING_FIGURES[at], *_LANDING_FIGURES[to]) for at, to in STEPS
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
        transfers=fetch if spec.on_cpu else (*fetch, rank_transfer(spec, Link.LOADER)),
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


def step_edge(spec: ModelSpec, at: Rung, to: Rung) -> Edge:
    """Between two rungs of a living engine. Only for pairs in `STEPS`."""
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
        transfers.append(rank_transfer(spec, Link.H2D))
    if at is Rung.SHED:
        fixed_s += c.WAKE_FIXED_S.value + c.RELOAD_FIXED_S.value
        transfers.append(rank_transfer(spec, Link.LOADER))
    if to is Rung.SERVING:
        fixed_s += map_kv_s
    if at is Rung.SERVING:
        fixed_s += c.SLEEP_FIXED_S.value + c.UNMAP_PER_GB_S.value * spec.kv_cache_bytes / GB
    if to is Rung.PARKED:
        transfers.append(rank_transfer(spec, Link.D2H))
    if to is Rung.SHED:
        fixed_s += c.UNMAP_PER_GB_S.value * weights_gb
    return fixed_s, tuple(transfers)
