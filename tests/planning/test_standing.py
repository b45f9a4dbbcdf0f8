"""What is done of a residency plan in idle time, one behaviour each."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.catalog import Catalog, ModelId, NodeId
from placement.edges import climb_us, footprint_bytes
from placement.feasibility import room_for_start
from placement.plan import Action, Evict, Park, Reason, ReasonCode, Start
from placement.planning.demand import ModelDemand
from placement.planning.draft import Facts
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.resident import Residency, Resident
from placement.planning.standing import work_towards
from placement.planning.writing import Ids, Planning
from placement.snapshot import ReplicaState, Rung, WeightsAt
from tests.builders import GB, catalog, model, node
from tests.planning.residencies import US, facts, sleeps
from tests.prewarm.worlds import NOW_US

WIDE = {"weights_bytes": 30 * GB, "kv_cache_bytes": 30 * GB}
"""Footprints of 62.5 GB: two do not fit a GPU of 80 GB, of which 72 may be used."""
A_DAY_AGO = ModelDemand(model_id=ModelId("a"), offered=1)


def resident(
    model_id: str, gpus: tuple[int, ...] = (0,), node_id: str = "n0", value: float = 20.0
) -> Resident:
    why = Reason(code=ReasonCode.RESIDENCY, numbers={"value": value})
    return Resident(model_id=ModelId(model_id), node_id=NodeId(node_id), gpu_ids=gpus, why=why)


def acts(
    whole: Catalog,
    residents: list[Resident],
    *replicas: ReplicaState,
    demand: tuple[ModelDemand, ...] = (A_DAY_AGO,),
    **changes: Any,
) -> tuple[Action, ...]:
    before = facts(whole, *replicas)
    now = Facts(
        snapshot=before.snapshot,
        catalog=whole,
        models=before.models,
        demand={d.model_id: d for d in demand},
        in_flight={},
        residency=Residency(made_us=NOW_US, residents=tuple(residents)),
        now_us=NOW_US,
        **changes,
    )
    return _done(Planning(now, _ids()))


def _done(planning: Planning) -> tuple[Action, ...]:
    work_towards(planning)
    return planning.decision().plan.actions


def _ids() -> Ids:
    made: list[str] = []

    def fresh(what: str) -> str:
        made.append(what)
        return f"{what}-new-{len(made)}"

    return Ids(lambda: fresh("action"), fresh)


def test_a_missing_engine_starts_where_its_whole_footprint_is_free() -> None:
    (action,) = acts(catalog(model("a")), [resident("a", (1,))])
    assert isinstance(action, Start)
    assert (action.model_id, action.gpu_ids) == ("a", (1,))
    assert action.why.code is ReasonCode.RESIDENCY
    assert action.why.numbers["value"] == 20.0
    assert action.why.numbers["start_s"] == climb_us(model("a"), WeightsAt.HOST) / US


def test_an_engine_that_exists_is_left_alone() -> None:
    assert not acts(catalog(model("a")), [resident("a")], sleeps("r", "a"))


def test_before_the_first_request_all_gpus_start_and_then_one_of_a_node() -> None:
    whole = catalog(model("a", **WIDE), model("b", **WIDE))
    both = [resident("a", (0,)), resident("b", (1,))]
    assert len(acts(whole, both, demand=())) == 2
    assert len(acts(whole, both)) == 1


def test_what_is_of_use_earlier_starts_earlier() -> None:
    later, sooner = resident("a"), resident("b", (1,))
    later = msgspec.structs.replace(later, start_by_us=NOW_US + 9)
    (action,) = acts(catalog(model("a"), model("b")), [later, sooner])
    assert isinstance(action, Start)
    assert action.model_id == "b"


def test_no_start_where_somebody_waits_and_could_stand() -> None:
    whole = catalog(model("a"), model("w"), nodes=(node(gpus=2),))
    waits = ModelDemand(model_id=ModelId("w"), held=1, offered=1)
    assert not acts(whole, [resident("a")], demand=(waits,))
    coming = msgspec.structs.replace(
        sleeps("r", "w", (1,), Rung.SERVING), action_id="x", target=Rung.SERVING
    )
    assert len(acts(whole, [resident("a")], coming, demand=(waits,))) == 1


def asked_soon(path_bits: bytes, paths: int) -> Outlook:
    """b is needed within a minute in these paths."""
    b = ModelOutlook(model_id=ModelId("b"), need=((path_bits,),))
    return Outlook(made_us=NOW_US, horizons_us=(60 * US,), paths=paths, models={"b": b})


def test_a_start_waits_while_a_neighbour_is_expected_to_lose_more_by_it() -> None:
    """Beside a start nobody is promoted: in one future of sixteen b would wait for 27 s."""
    whole = catalog(model("a"), model("b"))
    b, seldom = sleeps("r", "b"), asked_soon(b"\x00\x01", 16)
    assert not acts(whole, [resident("a", value=1.5), resident("b")], b, outlook=seldom)
    assert acts(whole, [resident("a", value=2.0), resident("b")], b, outlook=seldom)


def test_no_start_bars_the_only_engine_of_a_model_that_is_likely_to_be_asked() -> None:
    whole = catalog(model("a"), model("b"))
    b, sure = sleeps("r", "b"), asked_soon(b"\x01", 1)
    assert not acts(whole, [resident("a", value=1e6), resident("b")], b, outlook=sure)
    serving = sleeps("s", "b", (1,), Rung.SERVING)
    assert acts(whole, [resident("a", value=1e6), resident("b")], b, serving, outlook=sure)


def test_a_stranger_ends_where_its_room_on_the_host_is_wanted() -> None:
    """Two parked engines of 2.5 + 17.2 GB (16 GB rounded up to 16 GiB) leave 0.6 of 40 GB."""
    whole = catalog(model("a"), model("b"), model("stranger"), nodes=(node(host_bytes=40 * GB),))
    there = (sleeps("r-b", "b"), sleeps("r-stranger", "stranger"))
    (action,) = acts(whole, [resident("b"), resident("a", (1,))], *there)
    assert isinstance(action, Evict)
    assert (action.replica_id, action.why.for_model) == ("r-stranger", "a")
    assert not acts(whole, [resident("b")], *there), "nobody wants its room"


def test_a_warm_neighbour_steps_down_for_a_start_and_one_that_serves_does_not() -> None:
    whole = catalog(model("a", **WIDE), model("b", **WIDE), nodes=(node(gpus=1),))
    residents = [resident("b"), resident("a")]
    (action,) = acts(whole, residents, sleeps("r", "b", rung=Rung.WARM))
    assert isinstance(action, Park)
    assert action.why.for_model == "a"
    assert not acts(whole, residents, sleeps("r", "b", rung=Rung.SERVING))


def test_room_that_is_made_is_promised_until_it_is_old() -> None:
    whole = catalog(model("a", **WIDE), model("b", **WIDE), nodes=(node(gpus=1),))
    now = facts(whole, sleeps("r", "b", rung=Rung.WARM))
    residents = (resident("b"), resident("a"))
    residency = Residency(made_us=NOW_US, residents=residents)
    planning = Planning(_with(now, residency=residency), _ids())
    work_towards(planning)
    assert list(planning.draft.rooms) == ["a"]
    old = planning.draft.rooms["a"].until_us
    later = _with(
        facts(whole, sleeps("r", "b", rung=Rung.SERVING)),
        residency=residency,
        rooms=planning.draft.rooms,
        now_us=old,
    )
    planning = Planning(later, _ids())
    work_towards(planning)
    assert not planning.draft.rooms


def _with(before: Facts, **changes: Any) -> Facts:
    names = ("snapshot", "catalog", "models", "demand", "in_flight", "now_us")
    return Facts(**{n: getattr(before, n) for n in names} | changes)


@pytest.mark.parametrize("rung", [Rung.PARKED, Rung.SHED, Rung.WARM])
def test_no_more_engines_than_the_maximum(rung: Rung) -> None:
    whole = catalog(model("a", max_replicas=1))
    assert not acts(whole, [resident("a")], sleeps("r", "a", (1,), rung))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Catalog, list[Resident], list[ReplicaState]]:
    """Anything on any rung, anything wanted anywhere."""
    names = "abcd"
    specs = [
        model(m, gpus=draw(st.sampled_from([1, 2])), weights_bytes=draw(st.integers(5, 60)) * GB)
        for m in names
    ]
    whole = catalog(*specs, nodes=(node(host_bytes=draw(st.sampled_from([30, 90, 250])) * GB),))
    wanted, there = [], []
    for spec in specs:
        for gpus in ((0, 1),) if spec.gpus == 2 else ((0,), (1,)):
            if draw(st.booleans()):
                wanted.append(resident(spec.id, gpus, value=draw(st.floats(0, 100))))
            if draw(st.booleans()):
                rung = draw(st.sampled_from(list(Rung)))
                there.append(sleeps(f"{spec.id}-{gpus[0]}", spec.id, gpus, rung))
    return whole, wanted, there


@settings(max_examples=200)
@given(clusters(), st.booleans())
def test_every_start_has_room_and_nobody_who_serves_is_touched(
    case: tuple[Catalog, list[Resident], list[ReplicaState]], begun: bool
) -> None:
    whole, wanted, there = case
    actions = acts(whole, wanted, *there, demand=(A_DAY_AGO,) if begun else ())
    before = facts(whole, *there).snapshot.nodes[0]
    serving = {r.replica_id for r in there if r.rung is Rung.SERVING}
    for action in actions:
        if isinstance(action, Start):
            spec = whole.model(action.model_id)
            assert spec is not None
            shortage = room_for_start(spec, before, whole.nodes[0], action.gpu_ids)
            assert shortage is None, f"{footprint_bytes(spec)} bytes: {shortage.message}"
        else:
            assert isinstance(action, Evict | Park)
            assert action.replica_id not in serving
    starts = [g for a in actions if isinstance(a, Start) for g in a.gpu_ids]
    assert len(starts) == len(set(starts)), "one start per GPU at a time"
