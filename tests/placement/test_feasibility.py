"""Room: what fits on a node, and why something does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import feasibility as fit
from placement.catalog import ModelSpec, NodeId, NodeSpec, ReplicaId
from placement.edges import footprint_bytes, gpu_bytes, host_bytes
from placement.plan import RefusalCode
from placement.snapshot import GpuState, NodeState, Phase, ReplicaState, Rung
from tests.builders import GB, model, node

SMALL = model("small")
WIDE = model("wide", gpus=2, weights_bytes=60 * GB)


def replica(
    name: str, rung: Rung, *, spec: ModelSpec = SMALL, gpu_ids: tuple[int, ...] = (0,), **kw: object
) -> ReplicaState:
    defaults: dict[str, object] = {"phase": Phase.READY} | kw
    return ReplicaState(
        replica_id=ReplicaId(name),
        model_id=spec.id,
        node_id=NodeId("n0"),
        gpu_ids=gpu_ids,
        rung=rung,
        **defaults,  # type: ignore[arg-type]  # a builder passes what it is given
    )


def state(*replicas: ReplicaState, spec: NodeSpec | None = None) -> NodeState:
    """As an agent would report it."""
    spec = spec or node()
    empty = NodeState(
        node_id=spec.id,
        alive=True,
        gpus=tuple(GpuState(gpu_id=g, hbm_bytes=spec.hbm_bytes) for g in range(spec.gpus)),
        host_bytes=spec.host_bytes,
        host_reserved_bytes=0,
    )
    return fit.recounted(empty, replicas, spec, {"small": SMALL, "wide": WIDE})


def test_an_empty_gpu_has_its_usable_share_free() -> None:
    assert fit.gpu_free_bytes(state(), 0) == 72 * GB
    assert fit.room_for_start(SMALL, state(), node(), (1,)) is None


def test_a_start_that_does_not_fit_says_how_many_bytes() -> None:
    crowded = state(replica("r0", Rung.SERVING))
    shortage = fit.room_for_start(SMALL, crowded, node(), (0,))
    assert shortage is not None
    assert shortage.code is RefusalCode.NO_ROOM_GPU
    assert shortage.need_bytes == footprint_bytes(SMALL)
    assert shortage.free_bytes == 72 * GB - footprint_bytes(SMALL)
    assert fit.room_for_start(SMALL, crowded, node(), (1,)) is None


def test_one_start_per_gpu_and_none_beside_a_neighbour_that_frees() -> None:
    starting = replica("r0", Rung.SERVING, phase=Phase.STARTING, action_id="a", target=Rung.SERVING)
    leaving = replica("r0", Rung.WARM, action_id="a", target=Rung.PARKED)
    for there, code in (
        (starting, RefusalCode.START_IN_PROGRESS),
        (leaving, RefusalCode.IN_TRANSITION),
    ):
        shortage = fit.room_for_start(SMALL, state(there), node(), (0,))
        assert shortage is not None
        assert shortage.code is code


@pytest.mark.parametrize("gpu_ids", [(), (0,), (1, 0), (0, 2), (0, 0), (0, 1, 1)])
def test_a_gpu_set_must_be_the_models_and_the_nodes(gpu_ids: tuple[int, ...]) -> None:
    shortage = fit.room_for_start(WIDE, state(), node(), gpu_ids)
    assert shortage is not None
    assert shortage.code is RefusalCode.UNKNOWN_GPU


def test_host_memory_is_a_budget_too() -> None:
    small_host = node(host_bytes=host_bytes(SMALL, Rung.SERVING) - 1)
    shortage = fit.room_for_start(SMALL, state(spec=small_host), small_host, (0,))
    assert shortage is not None
    assert shortage.code is RefusalCode.NO_ROOM_HOST


def test_in_transition_the_larger_end_counts() -> None:
    waking = replica("r0", Rung.PARKED, action_id="a", target=Rung.SERVING)
    ending = replica("r1", Rung.WARM, action_id="b")
    found = state(waking, ending)
    expected = footprint_bytes(SMALL) + gpu_bytes(SMALL, Rung.WARM)
    assert found.gpus[0].reserved_bytes == expected
    assert found.host_reserved_bytes == host_bytes(SMALL, Rung.PARKED) + host_bytes(
        SMALL, Rung.WARM
    )


def test_a_promotion_with_its_victim_counts_as_the_larger_stage() -> None:
    climbing = replica("r0", Rung.SHED, action_id="a", target=Rung.SERVING)
    victim = replica("r1", Rung.SERVING, action_id="a", target=Rung.SHED)
    both = footprint_bytes(SMALL) + gpu_bytes(SMALL, Rung.SHED)
    assert state(climbing, victim).gpus[0].reserved_bytes == both


def test_recounting_keeps_what_only_the_agent_knows() -> None:
    parked = replica("r0", Rung.PARKED)
    before = state(parked)
    pinned_elsewhere = fit.recounted(before, (parked,), node(), {"small": SMALL})
    assert pinned_elsewhere == before
    assert fit.recounted(before, (), node(), {}).gpus == before.gpus, "unknown models stay counted"


@given(at=st.sampled_from(list(Rung)), to=st.sampled_from(list(Rung)), acts=st.booleans())
def test_who_was_parked_once_keeps_its_pinned_memory_everywhere(
    at: Rung, to: Rung, acts: bool
) -> None:
    moving: dict[str, Any] = {"action_id": "a", "target": to} if acts else {}
    found = state(replica("r0", at, pinned=True, **moving))
    assert found.host_reserved_bytes == host_bytes(SMALL, Rung.PARKED)


def test_parking_again_costs_nothing() -> None:
    full = node(host_bytes=host_bytes(SMALL, Rung.PARKED))
    again, first = replica("r0", Rung.SERVING, pinned=True), replica("r0", Rung.SERVING)
    assert fit.room_for_step(SMALL, state(again, spec=full), again, Rung.PARKED) is None
    tight = node(host_bytes=host_bytes(SMALL, Rung.PARKED) - 1)
    shortage = fit.room_for_step(SMALL, state(first, spec=tight), first, Rung.PARKED)
    assert shortage is not None
    assert shortage.code is RefusalCode.NO_ROOM_HOST


WIDTHS = st.sampled_from([1, 2, 4, 8])


@given(gpus=st.integers(1, 8), n=WIDTHS, m=WIDTHS)
def test_gpu_sets_nest_or_are_disjoint(gpus: int, n: int, m: int) -> None:
    spec = node(gpus=gpus)
    for one in fit.gpu_sets(spec, n):
        assert len(one) == n
        assert fit.wrong_gpu_set(model(gpus=n), spec, one) is None
        for other in fit.gpu_sets(spec, m):
            small, large = sorted((set(one), set(other)), key=len)
            assert small <= large or not small & large


def test_a_model_on_the_cpu_takes_no_gpus() -> None:
    assert fit.gpu_sets(node(), 0) == ((),)
    assert fit.gpu_sets(node(gpus=2), 4) == ()
    assert fit.gpu_sets(node(gpus=8), 3) == ((0, 1, 2), (4, 5, 6))
