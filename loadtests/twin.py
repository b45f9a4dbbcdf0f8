"""The same requests through a live emulated fleet and through the simulator, side by side. An edge.

In: a catalog file, a trace, a slice. Out: a `Twin`: the figures of both sides and their ratios.
Never: tunes one side to the other; both run the same controller, ledger, edges and batches, so a
difference is what processes, sockets and this machine add. That is the harness, not the physics.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer
import uvloop

from gateway.limits import allow_many_sockets
from gateway.progress import Silent
from loadtests.answers import Answer, Outcome
from loadtests.arrivals import Caps, deal, schedule, volumes
from loadtests.baselines.registry import POLICIES
from loadtests.client import Client
from loadtests.fleet_process import own_fleet
from loadtests.replay import replay
from loadtests.simulator.port import Ending, Run, Setup
from loadtests.simulator.world import simulate
from loadtests.study.sides import Side, Twin
from loadtests.target import look_at
from loadtests.workload import Asked, load, slice_of
from placement.catalog import Catalog, World
from placement.catalog_file import load_catalog
from placement.clock import Clock
from prewarm.traces.records import US, Requests

CATALOG = Path("serve_configs/warmserve16.yaml")


class Scheduled:
    """A schedule as the simulator's demand; there are no days before it."""

    start_us = 0
    past_days = 0

    def __init__(self, requests: Requests) -> None:
        self.models = requests.streams
        self.duration_us = requests.duration_us
        self._requests = requests

    def chunks(self) -> Iterator[Requests]:
        yield self._requests

    def past(self, days_back: int) -> Iterator[Requests]:
        raise AssertionError(f"no day lies {days_back} days before a schedule")


def prepared(trace: str, asked: Asked, catalog: Catalog) -> Requests:
    """The slice, its streams dealt round-robin to the catalog's models by the replay's own rule."""
    loaded = load(trace, asked.seed)
    _, found = slice_of(loaded, asked)
    dealt = deal(volumes(loaded.trace), [m.id for m in catalog.models], asked.named)
    return schedule(found.kept, dealt, asked.seed, asked.caps, loaded.lengths)


def simulated(requests: Requests, catalog: Catalog, seed: int) -> Run:
    setup = Setup(
        scenario="twin",
        world=World.S,
        seed=seed,
        catalog=catalog,
        demand=Scheduled(requests),
        warmup_us=US,
    )
    return simulate(setup, POLICIES["reactive"](setup))


async def live(requests: Requests, file: Path, speed: float, seed: int) -> list[Answer]:
    async with own_fleet(speed, file, Silent()) as up:
        target = await look_at(up.url, up.admin_url, "", speed=None, api_key="")
        client = Client(target.url, "")
        return await replay(requests, client, Clock(up.time_scale), seed=seed)


def side_of_live(answers: list[Answer], scale: float) -> Side:
    ttft = [a.ttft_us * scale / 1e3 for a in answers if a.ttft_us is not None]
    cold = sum(a.rung not in ("", "serving") for a in answers)
    return _side(sum(a.outcome is Outcome.ANSWERED for a in answers), cold, ttft)


def side_of_run(run: Run) -> Side:
    ttft = [
        ttft_us / 1e3
        for ttft_us, ending in zip(run.ttft_us, run.ending, strict=True)
        if ending == Ending.ANSWERED
    ]
    return _side(len(ttft), sum(run.cold), ttft)


def _side(answered: int, cold: int, ttft_ms: list[float]) -> Side:
    p50, p95, p99 = (float(x) for x in np.percentile(ttft_ms or [0.0], (50, 95, 99)))
    return Side(answered, cold, round(p50, 1), round(p95, 1), round(p99, 1))


def twin(trace: str, asked: Asked, file: Path, speed: float) -> Twin:
    """Both sides, the simulated one first: it costs a second and finds a wrong slice early."""
    catalog = load_catalog(file)
    requests = prepared(trace, asked, catalog)
    run = simulated(requests, catalog, asked.seed)
    allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(live(requests, file, speed, asked.seed))
    return Twin(len(requests), speed, side_of_live(answers, speed), side_of_run(run))


def main(
    trace: str = "generated",
    catalog: Path = CATALOG,
    speed: float = 1.0,
    duration: str = "10m",
    limit: int = 1500,
    seed: int = 0,
) -> None:
    """Print the two sides of one slice and, last, the worst ratio."""
    asked = Asked(None, duration, limit, (), {}, seed, Caps())
    found = twin(trace, asked, catalog, speed)
    for name, emulated, sim, ratio in found.rows():
        typer.echo(f"{name:14} {emulated:>10g} {sim:>10g} {ratio:.3f}")
    name, ratio = found.farthest()
    typer.echo(f"{found.requests} requests at scale {speed:g}; farthest apart: {name}, {ratio:.3f}")


if __name__ == "__main__":
    typer.run(main)
