"""One replay from a loaded trace to its document: fleet, sending, progress. An edge.

In: a trace's name, what was asked, where to aim. Out: the report's document.
Never: leaves a fleet of its own behind, prints on stdout.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import uvloop
from rich.console import Console

from gateway import state_dir
from gateway.limits import allow_many_sockets
from gateway.progress import steps
from loadtests.arrivals import check_streams, volumes
from loadtests.client import Client
from loadtests.fleet_process import own_fleet
from loadtests.replay import replay
from loadtests.report import About, Document, summarise
from loadtests.screen import progress
from loadtests.target import Target, look_at
from loadtests.workload import Asked, Loaded, Work, load, prepare, slice_of
from placement.catalog_file import load_catalog
from placement.clock import Clock
from prewarm.traces.records import US

OWN_SPEED = 20.0
ADMIN_URL = "http://127.0.0.1:8001"
BUSY_PER_WALL_S = 200.0


class Aim(NamedTuple):
    """Where the replay goes: a running gateway, or (no `url`) a fleet of its own."""

    url: str | None
    admin_url: str | None
    state_dir: Path
    catalog: Path | None
    speed: float | None
    api_key: str
    cancel_share: float


def run(trace: str, asked: Asked, aim: Aim, screen: Console) -> Document:
    """Everything that may fail on its input comes first, the fleet after it."""
    with steps() as shown:
        shown.step(f"reading {trace}")
        loaded = load(trace, asked.seed)
    check_streams(asked.named, volumes(loaded.trace))
    if aim.catalog is not None:
        load_catalog(aim.catalog)
    screen.print(f"{loaded.name}: {loaded.source}", markup=False, highlight=False, soft_wrap=True)
    allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_stoppable(loaded, asked, aim, screen))


async def _stoppable(loaded: Loaded, asked: Asked, aim: Aim, screen: Console) -> Document:
    """SIGTERM, like Ctrl-C, unwinds: a fleet of our own must not outlive us."""
    task = asyncio.current_task()
    assert task is not None, "runs inside a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    span, found = slice_of(loaded, asked)
    async with _target(aim, screen) as target:
        work = prepare(loaded, span, found, asked, target)
        for note in (*work.notes, *target.notes):
            screen.print(note, markup=False, highlight=False, soft_wrap=True)
        _warn_if_much(work, target.time_scale, screen)
        with progress(len(work.schedule), screen) as on_answer:
            answers = await replay(
                work.schedule,
                Client(target.url, aim.api_key),
                Clock(target.time_scale),
                seed=asked.seed,
                cancel_share=aim.cancel_share,
                on_answer=on_answer,
            )
        about = _about(loaded, work, target, asked.seed)
        schedule = work.schedule
        return summarise(about, schedule.streams, schedule.stream.tolist(), answers)


@contextlib.asynccontextmanager
async def _target(aim: Aim, screen: Console) -> AsyncIterator[Target]:
    """The gateway named by `--url`, or one of our own for as long as it is needed."""
    if aim.url is not None:
        admin_url, token = _admin_of(aim.url, aim.admin_url, aim.state_dir)
        yield await look_at(aim.url, admin_url, token, speed=aim.speed, api_key=aim.api_key)
        return
    speed = aim.speed or OWN_SPEED
    screen.print(f"starting a fleet at {speed:g} times wall time", highlight=False, soft_wrap=True)
    with steps() as shown:
        async with own_fleet(speed, aim.catalog, shown) as up:
            token = state_dir.admin_token(Path(up.state_dir))
            yield await look_at(
                up.url, up.admin_url, token, speed=up.time_scale, api_key=aim.api_key
            )


def _admin_of(url: str, given: str | None, folder: Path) -> tuple[str, str]:
    """The admin port that belongs to a gateway, and its token, by the card the gateway left."""
    card = state_dir.read_card(folder)
    its_own = card.admin_url if card is not None and card.url == url.rstrip("/") else None
    token = state_dir.admin_token(folder) if (folder / state_dir.TOKEN).is_file() else ""
    return given or its_own or ADMIN_URL, token


def _about(loaded: Loaded, work: Work, target: Target, seed: int) -> About:
    return About(
        trace=loaded.name,
        source=loaded.source,
        evidence=target.evidence(work.schedule.streams),
        time_scale=target.time_scale,
        seed=seed,
        url=target.url,
        start_s=work.span.start_us / US,
        duration_s=work.span.duration_us / US,
        held=work.held,
        arrivals=work.arrivals,
        lengths=work.lengths,
        streams=work.dealt,
        notes=(*work.notes, *target.notes),
    )


def _warn_if_much(work: Work, scale: float, screen: Console) -> None:
    per_s = len(work.schedule) / (work.span.duration_us / US / scale)
    if per_s > BUSY_PER_WALL_S:
        screen.print(
            f"{per_s:.0f} requests per wall second are more than one machine should be asked for: "
            "thin them with --limit, or replay slower",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
