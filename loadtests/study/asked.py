"""What a command line asks of a study, to tasks. An edge: reads scenarios and traces.

In: options as text. Out: `Study`: tasks, and where their demand comes from. Never: runs one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from loadtests.errors import AskedError
from loadtests.scenarios.files import Scenario, load_scenario
from loadtests.scenarios.shape import Cv, Hour, model_ids
from loadtests.scenarios.traced import traced
from loadtests.spans import span_us
from loadtests.study.grid import Narrowed, cells, one_cell, resized
from loadtests.study.running import known_policy
from loadtests.study.task import Task
from loadtests.trace_places import traces_folder
from placement.catalog import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As given; lists are separated by commas, empty means: not given."""

    scenario: str
    policies: str
    worlds: str
    seeds: tuple[int, ...]
    rps: str = ""
    alpha: str = ""
    cv: str = ""
    hour: str = ""
    size: str = ""
    duration: str = ""
    quick: bool = False
    trace: Path | None = None
    traces: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    scenario: Scenario
    tasks: list[Task]
    lengths: str


def study(asked: Options, here: Path, *, one: bool) -> Study:
    """Policies x worlds x cells x seeds; `one`: a single cell."""
    scenario = load_scenario(asked.scenario)
    duration_us = span_us(asked.duration, "--duration") if asked.duration else None
    if duration_us is not None and duration_us <= 0:
        raise AskedError("--duration must be longer than nothing")
    file = resized(scenario.file, asked.size or None, duration_us, quick=asked.quick)
    narrowed = _narrowed(asked)
    chosen = [one_cell(file, narrowed)] if one else cells(file, narrowed, quick=asked.quick)
    policies = [known_policy(name) for name in _listed(asked.policies, "--policies")]
    worlds = [_world(name) for name in _listed(asked.worlds, "--worlds")]
    folder = traces_folder(asked.traces, here)
    fed = traced(file.demand.source, len(model_ids(file)), folder, asked.trace)
    tasks = [
        Task(
            scenario=scenario.name,
            file=file,
            traced=fed,
            cell=cell,
            policy=policy,
            world=world,
            seed=seed,
        )
        for world in worlds
        for cell in chosen
        for seed in asked.seeds
        for policy in policies
    ]
    return Study(scenario=scenario, tasks=tasks, lengths=fed.lengths_told)


def _listed(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise AskedError(f"{option}: name at least one")
    return names


def _world(name: str) -> World:
    try:
        return World(name.upper())
    except ValueError:
        raise AskedError(f"no world {name!r}: there are S (stock) and W (WarmServe's)") from None


def _narrowed(asked: Options) -> Narrowed:
    return Narrowed(
        rps=_numbers(asked.rps, "--rps"),
        alpha=_numbers(asked.alpha, "--alpha"),
        cv=tuple(_cv(text) for text in _values(asked.cv)),
        hour=tuple(_hour(text) for text in _values(asked.hour)),
    )


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split(",") if value.strip()]


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in _values(text))
    except ValueError:
        raise AskedError(f"{option} {text!r}: write numbers, as 5,10") from None
    if not all(0 <= value < 1e9 for value in found) or (option == "--rps" and 0 in found):
        raise AskedError(f"{option} {text!r}: write positive numbers")
    return found


def _cv(text: str) -> Cv:
    return "original" if text == "original" else _numbers(text, "--cv")[0]


def _hour(text: str) -> Hour:
    words: Sequence[Hour] = get_args(Hour)
    for word in words:
        if text == word:
            return word
    raise AskedError(f"--hour {text!r}: write busiest or quietest")
