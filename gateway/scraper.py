"""Reads engines' own metrics beside the requests. An edge.

In: the lanes that are open. Out: `Readings` of each, in the gate's book. An engine that is slow,
silent or talks nonsense costs its own reading and nothing else. Never: sends a key, unpacks what is
compressed (a kilobyte may hold gigabytes), asks an engine that has refused more often than every
ten minutes.
"""

import asyncio
import logging

import httpx
import msgspec

from gateway.gate import Gate
from gateway.routing import Lane, upstream_name
from placement.engines.readings import Readings, UnreadableError, read_metrics

log = logging.getLogger("warmtide.gateway")

ASK_WALL_S = 2.0
PERIOD_WALL_S_MIN = 1.0
AT_ONCE = 8
TEXT_BYTES_MAX = 2 * 1024 * 1024
_PLAIN = ("", "identity")
REFUSED_REST_WALL_S = 600.0


class Scraper:
    """`start`, then `close`. What it reads stands in `gate.readings` by lane."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._client = httpx.AsyncClient(
            timeout=ASK_WALL_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=AT_ONCE),
            headers={"accept-encoding": "identity"},
        )
        self._resting_until_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            gate = self._gate
            every_us = gate.catalog.telemetry.scrape_us
            if every_us:
                try:
                    await self.round()
                except Exception:  # a bug here must not end the reading for good
                    log.exception("reading engines' metrics failed; the next round tries again")
            await asyncio.sleep(max(gate.clock.wall_s(every_us), PERIOD_WALL_S_MIN))

    async def round(self) -> None:
        """Ask every open lane once; forget those that are gone."""
        gate = self._gate
        lanes = {lane.lane_id: lane for lane in gate.open_lanes()}
        for lane_id in [known for known in gate.readings if known not in lanes]:
            del gate.readings[lane_id]
            self._resting_until_s.pop(lane_id, None)
        now_s = asyncio.get_running_loop().time()
        due = [x for k, x in lanes.items() if self._resting_until_s.get(k, 0.0) <= now_s]
        gates = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._ask(lane, gates) for lane in due))

    async def _ask(self, lane: Lane, gates: asyncio.Semaphore) -> None:
        readings = self._gate.readings
        try:
            async with gates, asyncio.timeout(ASK_WALL_S):
                values = read_metrics(
                    await self._text(lane), upstream_name(lane.spec, lane.spec.id)
                )
        except (httpx.HTTPError, httpx.InvalidURL, UnreadableError, TimeoutError) as error:
            known = readings.get(lane.lane_id, Readings())
            told = str(error) or type(error).__name__
            readings[lane.lane_id] = msgspec.structs.replace(known, problem=told[:300])
            return
        readings[lane.lane_id] = Readings(values=values, at_us=self._gate.now_us())

    async def _text(self, lane: Lane) -> str:
        """Raises `UnreadableError` for no answer; who refuses is left alone for long."""
        async with self._client.stream("GET", f"{lane.url}/metrics") as answer:
            if answer.status_code != 200:
                if answer.status_code < 500:
                    rest_until_s = asyncio.get_running_loop().time() + REFUSED_REST_WALL_S
                    self._resting_until_s[lane.lane_id] = rest_until_s
                raise UnreadableError(f"GET /metrics: {answer.status_code}")
            encoding = answer.headers.get("content-encoding", "")
            if encoding.lower() not in _PLAIN:
                raise UnreadableError(f"GET /metrics: encoded as {encoding[:40]}, unasked")
            parts, size = [], 0
            async for part in answer.aiter_raw():
                size += len(part)
                if size > TEXT_BYTES_MAX:
                    raise UnreadableError(f"GET /metrics: over {TEXT_BYTES_MAX} bytes")
                parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
