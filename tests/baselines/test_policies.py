"""Every policy in both worlds: laws hold, nobody is lost, the same seed tells the same story."""

import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from loadtests.baselines import plugins
from loadtests.baselines.plugins import UnknownPolicyError, policy_named, policy_names
from loadtests.baselines.registry import POLICIES, RELAXATIONS, reactive
from loadtests.simulator.port import Ending, NodeEvent, NodeEventKind, Run, Setup
from loadtests.simulator.world import simulate
from placement.catalog import NodeId, World
from tests.baselines.small import small_setup

US = 1_000_000


def run_of(name: str, setup: Setup) -> Run:
    return simulate(setup, POLICIES[name](setup), checked=True)


@pytest.mark.parametrize("world", list(World))
@pytest.mark.parametrize("name", list(POLICIES))
def test_laws_hold_and_every_request_ends_once(name: str, world: World) -> None:
    run = run_of(name, small_setup(world, seed=3, seconds=200))
    counts = Counter(Ending(e) for e in run.ending)
    assert sum(counts.values()) == len(run.arrived_us) > 400
    # Light demand on eight GPUs: but for starts of half a minute, nobody waits past a deadline.
    assert counts[Ending.ANSWERED] >= 0.97 * len(run.arrived_us), counts


@pytest.mark.parametrize("world", list(World))
@pytest.mark.parametrize("name", list(POLICIES))
def test_a_lost_node_costs_its_own_requests_alone(name: str, world: World) -> None:
    lost = (
        NodeEvent(at_us=150 * US, node_id=NodeId("n0"), kind=NodeEventKind.LOST),
        NodeEvent(at_us=220 * US, node_id=NodeId("n0"), kind=NodeEventKind.JOIN),
    )
    # `n0` is named by a JOIN, so it is absent at first: it joins, is lost, and joins again.
    first = NodeEvent(at_us=0, node_id=NodeId("n0"), kind=NodeEventKind.JOIN)
    setup = small_setup(world, seed=4, seconds=300, node_events=(first, *lost))
    run = run_of(name, setup)
    counts = Counter(Ending(e) for e in run.ending)
    assert counts[Ending.ANSWERED] + counts[Ending.REFUSED] + counts[Ending.CUT] == len(run.ending)
    assert counts[Ending.CUT] <= 32


_TELL = """
from loadtests.baselines.registry import POLICIES
from loadtests.simulator.world import simulate
from placement.catalog import World
from tests.baselines.small import small_setup
for world in World:
    for name in POLICIES:
        setup = small_setup(world, seed=5, seconds=60)
        print(world, name, simulate(setup, POLICIES[name](setup)).digest)
"""


@pytest.mark.heavy
def test_the_same_seed_tells_the_same_story_under_any_hash_seed() -> None:
    told = set()
    for hash_seed in ("0", "1", "4711"):
        ran = subprocess.run(
            [sys.executable, "-c", _TELL],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        told.add(ran.stdout)
    assert len(told) == 1
    assert len(next(iter(told)).splitlines()) == 2 * len(POLICIES)


def test_the_published_proactive_switch_is_both_of_its_effects() -> None:
    by_name = {
        name: run_of(name, small_setup(World.W, seed=6, seconds=300)).digest
        for name in ("warmserve", "warmserve-nolazy", "warmserve-noproactive")
    }
    assert by_name["warmserve"] != by_name["warmserve-nolazy"]
    assert by_name["warmserve"] != by_name["warmserve-noproactive"]


# --- names, and policies of other packages


def test_names_are_known_and_an_unknown_one_is_told_what_there_is() -> None:
    assert policy_named("reactive") is reactive
    assert policy_named("oracle") is RELAXATIONS["oracle"]
    assert not POLICIES.keys() & RELAXATIONS.keys()
    with pytest.raises(UnknownPolicyError) as failed:
        policy_named("prophetic")
    assert "'prophetic'" in str(failed.value)
    assert all(name in str(failed.value) for name in POLICIES)


def test_another_package_adds_a_policy_but_replaces_none(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = [
        EntryPoint("mine", "loadtests.baselines.registry:keepalive_lru", plugins.GROUP),
        EntryPoint("reactive", "loadtests.baselines.registry:static", plugins.GROUP),
        EntryPoint("broken", "loadtests.baselines.nowhere:policy", plugins.GROUP),
    ]

    def found(**wanted: Any) -> EntryPoints:
        return EntryPoints(theirs).select(**wanted)

    monkeypatch.setattr(plugins, "entry_points", found)
    assert policy_names()[-2:] == ["broken", "mine"]
    assert policy_named("mine") is POLICIES["keepalive-lru"]
    assert policy_named("reactive") is reactive
    with pytest.raises(UnknownPolicyError, match=r"broken.*nowhere.*mend or remove"):
        policy_named("broken")
