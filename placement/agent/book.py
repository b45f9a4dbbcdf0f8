"""The records of a node: what an agent is started with, and all that a restarted one needs.

In: nothing. Out: frozen structs that travel as JSON. Never: decides anything.
"""

import msgspec

from placement.catalog import Frozen, ModelSpec, NodeSpec
from placement.plan import Action, Answer, Outcome
from placement.snapshot import NodeState, ReplicaState, WeightsAt


class AgentSpec(Frozen, frozen=True, kw_only=True):
    """What an agent is started with. `state_dir` is this node's own folder."""

    node: NodeSpec
    models: tuple[ModelSpec, ...]
    time_scale: float
    anchor_us: int
    seed: int
    state_dir: str
    token_file: str
    port: int = 0
    vllm_python: str = ""
    """The interpreter that has vLLM; empty where there is none."""


class Held(Frozen, frozen=True, kw_only=True):
    """A replica, the model it was started as, and the canary's answer when it was young."""

    state: ReplicaState
    spec: ModelSpec
    canary: str = ""


class Running(Frozen, frozen=True, kw_only=True):
    action: Action
    began_us: int


class Told(Frozen, frozen=True, kw_only=True):
    seq: int
    outcome: Outcome


class Book(Frozen, frozen=True, kw_only=True):
    """All a restarted agent needs to go on."""

    seq: int = 0
    held: tuple[Held, ...] = ()
    weights_at: dict[str, WeightsAt] = msgspec.field(default_factory=dict)
    running: tuple[Running, ...] = ()
    answers: tuple[Answer, ...] = ()
    told: tuple[Told, ...] = ()


class Listening(Frozen, frozen=True, kw_only=True):
    """`agent.json`: where the agent listens, and who it is."""

    pid: int
    start_time: float
    port: int


class EventLine(Frozen, frozen=True, kw_only=True):
    """One line of `/v1/events`. The state is the newest; the outcome may be an older one."""

    seq: int
    node: NodeState
    outcome: Outcome | None = None
