"""The composition: clock, fleet, control loop, gate, both ports; started and stopped. An edge."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec

from gateway import state_dir as state
from gateway.admin import NodesChangedError, build_admin
from gateway.app import build_app
from gateway.checks import UnfitError, check_fit
from gateway.desk import AdminDesk, Desk
from gateway.gate import Gate
from gateway.hot_protocol import TICK_WALL_S, HotProtocol
from gateway.plugins import FLEETS
from gateway.recorder import Recorder
from gateway.scraper import Scraper
from gateway.tracing import Tracing, check_tracing
from gateway.words import StartError
from placement.catalog import Catalog, Frozen
from placement.catalog_diff import CatalogDiff, diff_catalogs
from placement.catalog_file import CatalogError, load_catalog, parse_catalog
from placement.clock import Clock
from placement.fleet import Fleet, FleetError
from prewarm.loop import Loop

log = logging.getLogger("warmtide.gateway")

DRAIN_WALL_S = 10.0
NODES_TOLD_MAX = 8
LAST_WORDS_WALL_S = 1.0
BACKLOG = 2048
GC_ALLOCATIONS = 50_000
START_LOOK_WALL_S = 0.1
Tell = Callable[[str, str], None]
_NOT_TAKEN = (OSError, UnicodeDecodeError, CatalogError, NodesChangedError, UnfitError)


class Settings(Frozen, frozen=True, kw_only=True):
    """What the command line said; the catalog says the rest."""

    catalog_path: str
    fleet: str
    host: str
    port: int
    admin_port: int
    state_dir: str
    time_scale: float | None = None


class Serving:
    """A running gateway. `start`, then `until_stopped`, then `close`.

    `secret_of` looks a secret up by the name of its environment variable; empty where it is unset.
    `tell` hears what a start or an end is waiting for: a name of the phase, and words.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        secret_of: Callable[[str], str],
        tell: Tell = lambda _name, _told: None,
    ) -> None:
        self.settings = settings
        self._tell = tell
        self._secret_of = secret_of
        self.folder = Path(settings.state_dir)
        self._declared_scale = catalog.time_scale
        scale = settings.time_scale or catalog.time_scale
        self.catalog = msgspec.structs.replace(catalog, time_scale=scale)
        self.clock = Clock(scale)
        self.gate = Gate(self.catalog, self.clock, secret_of)
        self.loop = Loop(self.catalog, self._fleet(), self.gate, self.clock)
        self.gate.eta_of = self.loop.eta_us
        self.gate.poke = self.loop.poke
        self.desk = Desk(self.gate, build_app(lambda: self.desk))
        kept = self.catalog.telemetry.history
        self.recorder = Recorder(self.gate.windows, self.folder, kept, self.clock)
        self._scraper = Scraper(self.gate)
        token = state.admin_token(self.folder)
        admin = build_admin(lambda: self.desk, self.loop, self.recorder, token, self.apply)
        self._admin_desk = AdminDesk(admin)
        self._connections: set[HotProtocol] = set()
        self._servers: list[asyncio.Server] = []
        self._stop = asyncio.Event()
        self._applying = asyncio.Lock()
        self._fleet_begun = False
        self._address = ""
        self._sweeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _fleet(self) -> Fleet:
        found = entry_points(group=FLEETS, name=self.settings.fleet)
        make: Callable[[Catalog, Path, Clock], Fleet] = next(iter(found)).load()
        return make(self.catalog, self.folder, self.clock)

    async def start(self) -> state.Card:
        """Open both ports, then bring the fleet up. Requests are held from the first moment."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_file)
        self._tell("ports", "opening the ports")
        url = await self._listen(self.desk, self.settings.port)
        admin_url = await self._listen(self._admin_desk, self.settings.admin_port)
        self._address = url.removeprefix("http://")
        self._trace_anew()
        self.recorder.start()
        await self._start_fleet()
        self._scraper.start()
        self._sweeper = asyncio.create_task(self._sweep())
        card = state.Card(
            pid=os.getpid(),
            start_time=state.own_start_time(),
            url=url,
            admin_url=admin_url,
            state_dir=str(self.folder),
            catalog=self.settings.catalog_path,
            time_scale=self.clock.scale,
        )
        state.write_card(self.folder, card)
        # What was built at start stays for good: the collector need not look at it again, and
        # requests leave next to no cycles behind, so it need not look often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 50)
        return card

    async def _start_fleet(self) -> None:
        """Bring the fleet up, unless somebody ends the gateway meanwhile."""
        self._fleet_begun = True
        starting = asyncio.create_task(self.loop.start())
        stopping = asyncio.create_task(self._stop.wait())
        pending = {starting, stopping}
        while len(pending) == 2:
            self._tell("fleet", self._awaited())
            _, pending = await asyncio.wait(
                pending, timeout=START_LOOK_WALL_S, return_when=asyncio.FIRST_COMPLETED
            )
        if stopping.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise StartError("ended while it was starting")
        stopping.cancel()
        try:
            await starting
        except FleetError as error:
            raise StartError(str(error)) from None

    def _awaited(self) -> str:
        """Which nodes a start waits for, by what the fleet has reported so far."""
        silent = [node.node_id for node in self.gate.snapshot.nodes if not node.alive]
        if not silent:
            return "starting the fleet"
        shown = ", ".join(silent[:NODES_TOLD_MAX])
        more = len(silent) - NODES_TOLD_MAX
        return f"waiting for the agents of {shown}{f' and {more} more' if more > 0 else ''}"

    async def until_stopped(self) -> None:
        await self._stop.wait()

    async def close(self) -> None:
        """Take nothing new, send off who is held, let running answers end for a while, then end the
        fleet: what this gateway began, nothing else."""
        self.desk.stopping = self._admin_desk.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        await self._drained(DRAIN_WALL_S)
        for connection in list(self._connections):
            connection.stop()
        await self._drained(LAST_WORDS_WALL_S)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._scraper.close()
        await self.gate.pool.close()
        await self.recorder.close()
        await self._end_tracing(self.gate.tracing)
        if self._fleet_begun:
            self._tell("ending", "ending agents and engines")
            await self.loop.close(end_engines=True)
            state.drop_card(self.folder)

    async def _drained(self, patience_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                # Only at the end of the process: connections need not carry an event for this.
                while self._connections:
                    open_now = len(self._connections)
                    answers = "1 answer" if open_now == 1 else f"{open_now} answers"
                    self._tell("draining", f"letting {answers} end")
                    await asyncio.sleep(0.05)

    async def apply(self, text: str, name: str) -> dict[str, Any]:
        """Take a changed catalog without dropping a request. One at a time: gate and control loop
        never end up with two different ones.

        Raises `CatalogError`, `UnfitError`, `NodesChangedError`.
        """
        fresh = parse_catalog(text, name)
        check_fit(fresh, self.settings.host, self._secret_of)
        check_tracing(fresh.telemetry)
        if fresh.time_scale != self._declared_scale:
            raise NodesChangedError(
                f"time_scale cannot change while the fleet runs (from {self._declared_scale:g} to "
                f"{fresh.time_scale:g}): `warmtide down`, then `warmtide up`"
            )
        fresh = msgspec.structs.replace(fresh, time_scale=self.clock.scale)
        async with self._applying:
            changes = await self._take(fresh)
        log.info("catalog %s: %s", fresh.version, changes)
        told: dict[str, Any] = msgspec.to_builtins(changes)
        return {"version": fresh.version, **told}

    async def _take(self, fresh: Catalog) -> CatalogDiff:
        changes = diff_catalogs(self.catalog, fresh)
        if changes.nodes_changed:
            raise NodesChangedError(
                "nodes, seed and vllm_python cannot change while the fleet runs: `warmtide down`, "
                "then `warmtide up`"
            )
        self.catalog = fresh
        self.gate.load(fresh)
        if changes.telemetry_changed:
            self.recorder.keep(fresh.telemetry.history)
            former = self.gate.tracing
            self._trace_anew()
            await self._end_tracing(former)
        await self.loop.reload(fresh)
        return changes

    def _trace_anew(self) -> None:
        policy = self.catalog.telemetry
        self.gate.tracing = Tracing(policy, self._address) if policy.otlp_url else None

    async def _end_tracing(self, tracing: Tracing | None) -> None:
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    def _reload_file(self) -> None:
        async def reload() -> None:
            path = self.settings.catalog_path
            try:
                await self.apply(_text_of(path), path)
            except _NOT_TAKEN as error:
                log.warning("the catalog was not reloaded, the old one stays: %s", error)

        task = asyncio.get_running_loop().create_task(reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, desk: Desk | AdminDesk, port: int) -> str:
        host = self.settings.host if desk is self.desk else "127.0.0.1"
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            server = await loop.create_server(
                lambda: HotProtocol(desk, self._connections),
                host,
                port,
                family=family,
                backlog=BACKLOG,
            )
        except OSError as error:
            flag = "--port" if desk is self.desk else "--admin-port"
            raise StartError(
                f"cannot listen on {host}:{port}: {_reason(error)}. Choose another with {flag}, "
                "or end what runs there (`warmtide doctor` tells who, `warmtide down` ends ours)"
            ) from None
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return f"http://{f'[{host}]' if ':' in host else host}:{bound[1]}"

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(TICK_WALL_S)
            self.desk.tick += 1
            self._admin_desk.tick += 1
            for connection in list(self._connections):
                connection.expire()
            self.gate.pool.sweep()


def _reason(error: OSError) -> str:
    """The system's words alone: asyncio wraps them in its own."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _text_of(path: str) -> str:
    return Path(path).read_text("utf-8")


def load_for_start(path: Path, host: str, fleet: str, secret_of: Callable[[str], str]) -> Catalog:
    """The catalog, checked against how it will be served. Raises `CatalogError`, `UnfitError`.

    Fleets are plug-ins: the local one ships, others register an entry point.
    """
    known = sorted(entry.name for entry in entry_points(group=FLEETS))
    if fleet not in known:
        raise UnfitError(
            f"there is no fleet `{fleet}` in this installation, only: {', '.join(known)}. "
            f"Other fleets are packages with an entry point `{FLEETS}`"
        )
    catalog = load_catalog(path)
    check_fit(catalog, host, secret_of)
    check_tracing(catalog.telemetry)
    return catalog
