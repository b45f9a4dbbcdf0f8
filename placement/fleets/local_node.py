"""One node of the local fleet: its agent process, kept alive, and what it last reported. ✎

A node whose agent is down counts as alive for a while: tokens bypass the agent, so its replicas go
on serving while the agent is restarted. Only a long silence makes the node dead.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from placement.agent.book import AgentSpec, EventLine, Listening
from placement.catalog import ModelSpec, NodeSpec
from placement.clock import Clock
from placement.engines.base import (
    IDENTITY,
    EngineError,
    Identity,
    alive,
    end,
    spawn,
    write_json,
)
from placement.fleet import FleetError
from placement.fleets.leftovers import AGENT_FILE, AGENT_SPEC, end_node
from placement.plan import Outcome
from placement.snapshot import NodeState

log = logging.getLogger(__name__)

GRACE_WALL_S = 20.0
"""How long a silent agent's node still counts as alive."""

_SILENCE_WALL_S = 12.0
"""Agents send an empty line every 5 s; more than two missed is a dead connection."""

_BACKOFF_WALL_S = (0.1, 5.0)
_LISTEN_WALL_S = 30.0
_POLL_WALL_S = 0.02
_LINE = msgspec.json.Decoder(EventLine)


class AgentDownError(FleetError):
    """An agent did not come up, or does not answer."""


class LocalNode:
    """Follows one agent and restarts it. `changed` is called after each report."""

    def __init__(
        self,
        *,
        spec: NodeSpec,
        models: tuple[ModelSpec, ...],
        seed: int,
        folder: Path,
        token_file: Path,
        clock: Clock,
        client: httpx.AsyncClient,
        vllm_python: str,
        changed: Callable[[Outcome | None], None],
    ) -> None:
        self.spec = spec
        self.alive = False
        self.url: str | None = None
        self.reported = asyncio.Event()
        self.log_file = folder / "agent.log"
        self._folder = folder
        self._client = client
        self._changed = changed
        self._last: NodeState | None = None
        self._seq = -1
        self._catching_up = True
        self._silent: asyncio.TimerHandle | None = None
        self._agent_spec = AgentSpec(
            node=spec,
            models=models,
            time_scale=clock.scale,
            anchor_us=clock.anchor_us,
            seed=seed,
            state_dir=str(folder),
            token_file=str(token_file),
            vllm_python=vllm_python,
        )

    def state(self) -> NodeState:
        """As last reported. A node that never reported has nothing and is not alive."""
        if self._last is None:
            return NodeState(
                node_id=self.spec.id, alive=False, gpus=(), host_bytes=0, host_reserved_bytes=0
            )
        return msgspec.structs.replace(self._last, alive=self.alive)

    async def reload(self, models: tuple[ModelSpec, ...]) -> None:
        """New models for the agent; one that is down hears of them when it is back."""
        self._agent_spec = msgspec.structs.replace(self._agent_spec, models=models)
        if self.url is not None:
            with contextlib.suppress(httpx.HTTPError):
                await self._send_models()

    async def keep(self) -> None:
        """Keep an agent up and follow it, until cancelled. No error ends the following."""
        backoff_s = _BACKOFF_WALL_S[0]
        try:
            while True:
                heard_seq = self._seq
                try:
                    await self._follow()
                except (httpx.HTTPError, AgentDownError, EngineError, OSError) as error:
                    log.warning("agent of %s: %s %s", self.spec.id, type(error).__name__, error)
                except Exception:
                    # Words we cannot read, or a listener's bug: the node is there all the same.
                    log.exception("following the agent of %s", self.spec.id)
                self._lost()
                if self._seq != heard_seq:
                    backoff_s = _BACKOFF_WALL_S[0]
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_WALL_S[1])
        finally:
            if self._silent is not None:
                self._silent.cancel()

    async def _follow(self) -> None:
        url = f"http://127.0.0.1:{(await self._agent()).port}"
        await self._send_models(url)
        self.url = url
        timeout = httpx.Timeout(_SILENCE_WALL_S)
        async with self._client.stream(
            "GET", f"{url}/v1/events", params={"after": self._seq}, timeout=timeout
        ) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line:
                    self._hear(_LINE.decode(line))

    async def _send_models(self, url: str | None = None) -> None:
        body = msgspec.json.encode(self._agent_spec.models)
        answer = await self._client.put(f"{url or self.url}/v1/models", content=body)
        answer.raise_for_status()

    def _hear(self, line: EventLine) -> None:
        # What ended before we came is told again and concerns nobody here.
        outcome = None if self._catching_up else line.outcome
        self._catching_up = self._catching_up and line.seq < line.node.seq
        self._seq, self._last, self.alive = line.seq, line.node, True
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
        self.reported.set()
        self._changed(outcome)

    def _lost(self) -> None:
        """No agent to talk to. Its node is dead only if this lasts."""
        self.url = None
        if self.alive and self._silent is None:
            self._silent = asyncio.get_running_loop().call_later(GRACE_WALL_S, self._dead)

    def _dead(self) -> None:
        log.error(
            "agent of %s has been silent for %s s: its node is dead", self.spec.id, GRACE_WALL_S
        )
        self.alive, self._silent = False, None
        self._changed(None)

    async def _agent(self) -> Listening:
        """The node's agent: the one that lives, if it is ours, or a new one."""
        listening = _listening(self._folder / AGENT_FILE)
        if listening is not None and alive(_identity(listening)):
            if self._ours() and await self._answers(listening):
                return listening
            if self._ours():
                await end(_identity(listening))
        if not self._ours():
            for ended in await asyncio.to_thread(end_node, self._folder):
                log.info("started with other settings: ended %s", ended)
        return await self._spawn()

    def _ours(self) -> bool:
        """Whether what runs on this node was started as we would start it."""
        try:
            there = msgspec.json.decode((self._folder / AGENT_SPEC).read_bytes(), type=AgentSpec)
        except (OSError, msgspec.DecodeError):
            return False
        # Without a time scale, trace time is wall time whatever the anchor.
        anchor_us = there.anchor_us if there.time_scale == 1.0 else self._agent_spec.anchor_us
        mine = msgspec.structs.replace(self._agent_spec, models=there.models, anchor_us=anchor_us)
        return there == mine

    async def _answers(self, listening: Listening) -> bool:
        """Whether an agent that lives also speaks; one that hangs is replaced."""
        try:
            url = f"http://127.0.0.1:{listening.port}/health"
            return (await self._client.get(url, timeout=_SILENCE_WALL_S)).is_success
        except httpx.HTTPError:
            return False

    async def _spawn(self) -> Listening:
        agent_file = self._folder / AGENT_FILE
        agent_file.unlink(missing_ok=True)
        write_json(self._folder / AGENT_SPEC, self._agent_spec)
        identity = await spawn(
            ["-m", "placement.agent.app", "--spec", str(self._folder / AGENT_SPEC)],
            log=self.log_file,
            identity_file=self._folder / f"agent{IDENTITY}",
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LISTEN_WALL_S):
                while alive(identity):
                    if (listening := _listening(agent_file)) is not None:
                        return listening
                    await asyncio.sleep(_POLL_WALL_S)
        await end(identity)
        raise AgentDownError(f"did not come up: see {self.log_file}")


def _listening(path: Path) -> Listening | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Listening)
    except (OSError, msgspec.DecodeError):
        return None


def _identity(listening: Listening) -> Identity:
    return Identity(pid=listening.pid, start_time=listening.start_time)
