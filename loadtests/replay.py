"""Open-loop replay. An edge: sleeps until each request is due, sends it, collects the answers.

In: a schedule in trace time, a client, a clock. Out: one `Answer` per request, in order.
Never: holds a request back because others are unfinished, sends one twice, runs for ever.
"""

import asyncio
from collections.abc import Callable

import numpy as np

from loadtests.answers import Answer
from loadtests.client import Client
from loadtests.draws import Floats, stream
from loadtests.prompts import Prompts
from placement.clock import Clock, monotonic_us, wall_us
from prewarm.traces.records import US, Requests

# Deadline 120 s, then the longest answer; a slow machine gets wall time on top.
PATIENCE_US = 900 * US
PATIENCE_WALL_S_MIN = 60.0
LEAVE_MEAN_US = 5 * US


async def replay(
    schedule: Requests,
    client: Client,
    clock: Clock,
    *,
    seed: int,
    cancel_share: float = 0.0,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> list[Answer]:
    """Send every request at its time. Ends at the latest one patience after the last one."""
    prompts = Prompts(seed)
    patience_s = max(PATIENCE_WALL_S_MIN, clock.wall_s(PATIENCE_US))
    leave_us = leaving_us(len(schedule), cancel_share, seed)
    run = f"replay-{wall_us():x}"
    started_us = monotonic_us()

    async def one(index: int, due_us: int) -> Answer:
        body = prompts.body(schedule, index)
        leaves = bool(np.isfinite(leave_us[index]))
        answer = await client.ask(
            body,
            request_id=f"{run}-{index}",
            patience_s=patience_s,
            leave_after_s=clock.wall_s(float(leave_us[index])) if leaves else None,
            late_us=max(0, monotonic_us() - due_us),
        )
        on_answer(answer)
        return answer

    tasks: list[asyncio.Task[Answer]] = []
    try:
        for index, at_us in enumerate(schedule.at_us.tolist()):
            due_us = started_us + int(clock.wall_s(at_us) * US)
            await asyncio.sleep(max(0.0, (due_us - monotonic_us()) / US))
            tasks.append(asyncio.create_task(one(index, due_us)))
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client.close()


def leaving_us(count: int, share: float, seed: int) -> Floats:
    """When each client leaves, in trace time after sending; infinity for those who stay."""
    rng = stream(seed, "leaving")
    leaves = rng.random(count) < share
    after: Floats = rng.exponential(LEAVE_MEAN_US, count)
    return np.where(leaves, after, np.inf)
