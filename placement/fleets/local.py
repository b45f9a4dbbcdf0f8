"""The fleet on this machine: an agent process per node, followed, restarted, merged. ✎

In: a catalog, a state directory. Out: the `placement.fleet.Fleet` port. Agents run in sessions of
their own and engines outlive them, so a gateway that was killed finds its fleet again by the state
directory; `end_leftovers` ends what is found there when nobody wants it back.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from placement.catalog import Catalog, ModelSpec, NodeSpec
from placement.clock import Clock
from placement.engines.vllm_find import VllmMissingError, vllm_for
from placement.fleet import ActionEnded, FleetChanged, FleetError, FleetEvent
from placement.fleets.leftovers import end_leftovers as end_leftovers
from placement.fleets.leftovers import end_node
from placement.fleets.local_node import AgentDownError, LocalNode
from placement.plan import Accepted, Action, Answer, Outcome, RefusalCode, Refused
from placement.snapshot import ClusterSnapshot, NodeState
from placement.tokens import token_in

log = logging.getLogger(__name__)

_SUBMIT_WALL_S = 10.0
_UP_WALL_S = 60.0
_ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Accepted | Refused)


class LocalFleet:
    """Agents and engines of every node of the catalog, on this machine."""

    def __init__(self, catalog: Catalog, state_dir: Path, clock: Clock) -> None:
        self._catalog = catalog
        self._state_dir = state_dir.absolute()
        self._clock = clock
        self._nodes: dict[str, LocalNode] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._version = 0
        self._snapshot = ClusterSnapshot(version=0)
        self._listener: Callable[[FleetEvent], None] = lambda _: None
        self._client: httpx.AsyncClient | None = None
        self._vllm_python = ""

    async def start(self, listener: Callable[[FleetEvent], None]) -> None:
        """Bring every agent up, or find it; return when each has reported its inventory."""
        self._listener = listener
        token_file = self._state_dir / "agent.token"
        token = token_in(token_file)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=_SUBMIT_WALL_S,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._vllm_python = await asyncio.to_thread(_vllm_python, self._catalog)
        await asyncio.to_thread(self._end_departed)
        for spec in self._catalog.nodes:
            self._nodes[spec.id] = self._node(spec, token_file)
        self._tasks = [asyncio.create_task(node.keep()) for node in self._nodes.values()]
        self._publish(None)
        try:
            async with asyncio.timeout(_UP_WALL_S):
                for node in self._nodes.values():
                    await node.reported.wait()
        except TimeoutError:
            late = [f"{n.spec.id} ({n.log_file})" for n in self._nodes.values() if not n.alive]
            await self.close(end_engines=False)
            raise AgentDownError(f"no word from the agents of {', '.join(late)}") from None

    async def submit(self, action: Action) -> Answer:
        """Ask the node's agent. Asking twice is safe: agents remember actions by id."""
        node = self._nodes.get(action.node_id)
        if node is None or self._client is None:
            return _unreachable(action, f"no node {action.node_id} in this fleet")
        problem = "its agent is down and will be back"
        for _ in range(2):
            if (url := node.url) is None:
                break
            try:
                answer = await self._client.post(
                    f"{url}/v1/actions", content=msgspec.json.encode(action)
                )
                if answer.status_code in (202, 409):
                    return _ANSWER.decode(answer.content)
                problem = f"{answer.status_code} {answer.text[:200]}"
            except (httpx.HTTPError, msgspec.DecodeError) as error:
                problem = f"{type(error).__name__} {error}"
        return _unreachable(action, f"agent of {action.node_id}: {problem}")

    def snapshot(self) -> ClusterSnapshot:
        return self._snapshot

    async def reload(self, catalog: Catalog) -> None:
        """Changed models to every agent; one that is down hears it when it is back."""
        self._catalog = catalog
        models = managed(catalog)
        await asyncio.gather(*(node.reload(models) for node in self._nodes.values()))

    async def close(self, *, end_engines: bool) -> None:
        """Let go of the agents. They and the engines go on, unless they are to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        if end_engines:
            await asyncio.to_thread(end_leftovers, self._state_dir)

    def _node(self, spec: NodeSpec, token_file: Path) -> LocalNode:
        assert self._client is not None, "start() opens the client first"
        return LocalNode(
            spec=spec,
            models=managed(self._catalog),
            seed=self._catalog.seed,
            folder=node_folder(self._state_dir, spec.id),
            token_file=token_file,
            clock=self._clock,
            client=self._client,
            vllm_python=self._vllm_python,
            changed=self._publish,
        )

    def _end_departed(self) -> None:
        """Nodes of a former catalog that this one does not have."""
        known = {node_folder(self._state_dir, n.id).name for n in self._catalog.nodes}
        for folder in sorted((self._state_dir / "nodes").glob("*")):
            if folder.name not in known:
                for ended in end_node(folder):
                    log.info("no longer in the catalog: ended %s", ended)

    def _publish(self, outcome: Outcome | None) -> None:
        """A node changed: a new version for everybody, then what ended."""
        self._version += 1
        states: list[NodeState] = [node.state() for node in self._nodes.values()]
        self._snapshot = ClusterSnapshot(version=self._version, nodes=tuple(states))
        try:
            self._listener(FleetChanged(snapshot=self._snapshot))
        finally:
            # An outcome is told once only: a listener that broke on the news still gets it.
            if outcome is not None:
                self._listener(ActionEnded(outcome=outcome))


def managed(catalog: Catalog) -> tuple[ModelSpec, ...]:
    """Models that agents run; external ones are none of their business."""
    return tuple(m for m in catalog.models if m.managed)


def _vllm_python(catalog: Catalog) -> str:
    """The interpreter that has vLLM; empty where there is none and no model needs one."""
    try:
        found = vllm_for(catalog)
    except VllmMissingError as error:
        raise FleetError(str(error)) from None
    if found is not None and found.remark:
        log.warning("%s", found.remark)
    return found.python if found else ""


def node_folder(state_dir: Path, node_id: str) -> Path:
    return state_dir / "nodes" / node_id.replace("/", "%2F")


def _unreachable(action: Action, message: str) -> Refused:
    return Refused(
        action_id=action.action_id, reason_code=RefusalCode.NODE_UNREACHABLE, message=message
    )
