"""Other questions made of a scenario: another fleet for the same demand, another day. Pure.

In: a `ScenarioFile` or a `Task`. Out: another. Never: changes how much is asked together with who
serves it: load stays a share of what the scenario's own GPUs could serve.
"""

import dataclasses
from math import ceil

from loadtests.scenarios.shape import ModelsEntry, ScenarioFile
from loadtests.study.task import Task
from placement.catalog_shape import NodeEntry

ROOM = 1.25
"""Sets of GPUs are aligned, so what is to hold every replica needs more than their sum."""


def fixed_fleet(file: ScenarioFile, nodes: int) -> ScenarioFile:
    """So many nodes of its first kind, all the time."""
    [kind, *_] = file.nodes
    fleet = [kind.model_copy(update={"count": nodes})]
    return _before(file, fleet)


def room_for_all(file: ScenarioFile) -> ScenarioFile:
    """So many nodes of its first kind that every replica that a model may have has GPUs."""
    wanted = sum((entry.count or 1) * _gpus_at_most(file, entry) for entry in file.models)
    return fixed_fleet(file, ceil(ROOM * wanted / file.nodes[0].gpus))


def _gpus_at_most(file: ScenarioFile, entry: ModelsEntry) -> int:
    """Of one model with all the replicas that it may have; without a bound, all that there are."""
    shape = file.shapes[entry.shape]
    return gpus_of(file) if shape.max_replicas is None else shape.gpus * shape.max_replicas


def gpus_of(file: ScenarioFile) -> int:
    return sum((node.count or 1) * node.gpus for node in file.nodes)


def _before(file: ScenarioFile, fleet: list[NodeEntry]) -> ScenarioFile:
    """The same demand before another fleet."""
    demand = file.demand
    if demand.load is not None and demand.load.gpus is None:
        load = demand.load.model_copy(update={"gpus": gpus_of(file)})
        demand = demand.model_copy(update={"load": load})
    update = {"nodes": fleet, "demand": demand, "elastic": None, "node_events": []}
    return file.model_copy(update=update)


def other_time(
    file: ScenarioFile, *, day: int | None = None, hour: int | None = None
) -> ScenarioFile:
    """Another day or hour; cells that say `busiest` or `quietest` keep to that."""
    where = file.slice
    day = where.day if day is None else day
    past_days = min(where.past_days, day - 1)
    hour = where.hour if hour is None else hour
    moved = where.model_copy(update={"day": day, "hour": hour, "past_days": past_days})
    return file.model_copy(update={"slice": moved})


def at_rate(task: Task, rps: float) -> Task:
    """The same cell, asked so many times a second."""
    return dataclasses.replace(task, cell=task.cell.model_copy(update={"rps": rps}))
