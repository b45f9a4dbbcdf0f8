"""A plan that the world has overtaken: nodes see it, refuse it, and lose nothing by it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.agent.book import Book, Held
from placement.agent.ledger import Ledger
from placement.catalog import World
from placement.feasibility import usable_hbm_bytes
from placement.plan import Accepted, Drain, RefusalCode, Refused, Restore, stepping_down
from placement.planning.draft import Facts
from placement.planning.explained import PLANS, fixed_ids
from placement.planning.writing import Decision, Ids
from placement.snapshot import Rung
from tests.planning.clusters import clusters

searching = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
every_policy = pytest.mark.parametrize("policy", PLANS)


def ledgers(facts: Facts) -> dict[str, Ledger]:
    """The nodes of these facts, as their agents keep them."""
    found: dict[str, Ledger] = {}
    for node in facts.snapshot.nodes:
        spec = facts.catalog.node(node.node_id)
        assert spec is not None
        held = tuple(Held(state=r, spec=facts.models[r.model_id]) for r in node.replicas)
        book = Book(held=held, weights_at={str(m): at for m, at in node.weights_at.items()})
        found[node.node_id] = Ledger(spec, facts.catalog.models, book)
    return found


def decided(facts: Facts, policy: str, prefix: str) -> Decision:
    """Ids as of a controller of that name."""
    ids = fixed_ids(facts.snapshot)
    own = Ids(lambda: f"{prefix}-{ids.action()}", lambda m: f"{prefix}-{ids.replica(m)}")
    return PLANS[policy](facts, own)


def busy(facts: Facts) -> frozenset[str]:
    return frozenset(name for name, running in facts.in_flight.items() if running)


@every_policy
@searching
@given(data=st.data())
def test_agents_take_a_plan_of_what_is_so_as_it_stands(data: st.DataObject, policy: str) -> None:
    facts = data.draw(clusters(World.S, forecast=policy != "reactive"))
    nodes = ledgers(facts)
    for action in decided(facts, policy, "a").plan.actions:
        answer = nodes[action.node_id].admit(action, facts.now_us, busy(facts))
        assert isinstance(answer, Accepted), answer


@every_policy
@searching
@given(data=st.data())
def test_a_plan_heard_twice_changes_nothing(data: st.DataObject, policy: str) -> None:
    facts = data.draw(clusters(World.S, forecast=policy != "reactive"))
    nodes, plan = ledgers(facts), decided(facts, policy, "a").plan
    for action in plan.actions:
        nodes[action.node_id].admit(action, facts.now_us, busy(facts))
    books = {name: ledger.book() for name, ledger in nodes.items()}
    for action in plan.actions:
        answer = nodes[action.node_id].admit(action, facts.now_us, busy(facts))
        assert isinstance(answer, Accepted)
    assert {name: ledger.book() for name, ledger in nodes.items()} == books


@every_policy
@searching
@given(data=st.data())
def test_a_plan_of_what_was_so_is_refused_and_overcommits_nothing(
    data: st.DataObject, policy: str
) -> None:
    """Another controller believes the same snapshot, and comes second."""
    facts = data.draw(clusters(World.S, forecast=policy != "reactive"))
    nodes = ledgers(facts)
    for action in decided(facts, policy, "a").plan.actions:
        nodes[action.node_id].admit(action, facts.now_us, busy(facts))
    for action in decided(facts, policy, "b").plan.actions:
        assert action.snapshot_version == facts.snapshot.version
        answer = nodes[action.node_id].admit(action, facts.now_us, busy(facts))
        if not isinstance(action, Drain | Restore):  # those may be said twice
            assert isinstance(answer, Refused), action
    for ledger in nodes.values():
        state = ledger.state()
        usable = usable_hbm_bytes(ledger.node.hbm_bytes)
        assert all(gpu.reserved_bytes <= usable for gpu in state.gpus)
        assert state.host_reserved_bytes <= state.host_bytes


@every_policy
@searching
@given(data=st.data())
def test_who_became_busy_meanwhile_is_not_stepped_down(data: st.DataObject, policy: str) -> None:
    facts = data.draw(clusters(World.S, forecast=policy != "reactive"))
    nodes = ledgers(facts)
    everybody = frozenset(r.replica_id for r in facts.snapshot.replicas())
    for action in decided(facts, policy, "a").plan.actions:
        answer = nodes[action.node_id].admit(action, facts.now_us, everybody)
        down = [facts.snapshot.replica(name) for name in stepping_down(action)]
        if any(replica is not None and replica.rung is Rung.SERVING for replica in down):
            assert isinstance(answer, Refused)
            assert answer.reason_code is RefusalCode.BUSY
