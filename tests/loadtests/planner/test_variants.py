"""The same demand before another fleet; another time; another rate."""

from dataclasses import replace

import numpy as np

from loadtests.scenarios.demand import ShapedDemand
from loadtests.scenarios.setups import Wanted, build
from loadtests.scenarios.shape import ScenarioFile
from loadtests.simulator.port import Setup
from loadtests.study.task import Task
from loadtests.study.variants import at_rate, fixed_fleet, gpus_of, other_time, room_for_all
from placement.catalog import World
from tests.loadtests.scenes import busy_days, scenario

BY_LOAD = (
    ('shares = "zipf"', 'shares = "volume", load = {mean = 0.3, peak = 0.9}'),
    ('cell = {rps = 6.0, alpha = 1.0, cv = "original", hour = "busiest"}', ""),
)
ELASTIC = (
    "[shapes.s]",
    '[elastic]\nlead = "4 min"\nnodes_min = 1\nidle = "10 min"\n[shapes.s]\nmax_replicas = 6',
)


def built(file: ScenarioFile) -> Setup:
    wanted = Wanted(cell=file.cell, world=World.W, seed=1)
    return build("small", file, busy_days(), wanted).setup


def expected(setup: Setup) -> np.ndarray:
    assert isinstance(setup.demand, ShapedDemand)
    return setup.demand.expected


def test_another_fleet_meets_the_same_demand() -> None:
    file = scenario(*BY_LOAD, ELASTIC)
    for nodes in (1, 5):
        other = built(fixed_fleet(file, nodes))
        assert len(other.catalog.nodes) == nodes
        assert other.elastic is None
        assert np.array_equal(expected(other), expected(built(file)))


def test_a_variant_of_a_variant_is_still_a_share_of_the_first_fleet() -> None:
    file = scenario(*BY_LOAD, ELASTIC)
    twice = fixed_fleet(fixed_fleet(file, 7), 3)
    assert np.array_equal(expected(built(twice)), expected(built(file)))


def test_there_is_room_for_every_replica_that_a_model_may_have() -> None:
    # Three models of six replicas of one GPU: 18, and a quarter for alignment: 22.5, three nodes.
    assert gpus_of(room_for_all(scenario(*BY_LOAD, ELASTIC))) == 24
    # Without a bound each model may fill the sixteen GPUs that there are: 48, 60, eight nodes.
    assert gpus_of(room_for_all(scenario(*BY_LOAD))) == 64


def test_another_day_knows_fewer_days_before_it() -> None:
    moved = other_time(scenario(), day=2, hour=4)
    assert (moved.slice.day, moved.slice.hour, moved.slice.past_days) == (2, 4, 1)
    assert other_time(scenario()) == scenario()


def test_another_rate_is_another_cell_of_the_same_place() -> None:
    file = scenario()
    task = Task(
        scenario="small",
        file=file,
        traced=busy_days(),
        cell=file.cell,
        policy="reactive",
        world=World.W,
        seed=0,
    )
    faster = at_rate(task, 12.0)
    assert faster.cell == file.cell.model_copy(update={"rps": 12.0})
    assert replace(faster, cell=file.cell).identity() == task.identity() != faster.identity()


def test_a_setup_says_what_its_policies_shall_go_by() -> None:
    assert built(scenario()).forecast == "learned"
    turned = scenario(("question =", 'forecast = "inverted"\nquestion ='))
    assert built(turned).forecast == "inverted"
