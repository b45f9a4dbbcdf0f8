"""What a simulated cluster is set up from, who may decide in it, and what comes out.

`Setup` in, a `Policy` that decides, a `Run` out. Scenarios build setups, `baselines` builds
policies, `world` runs them, `cells` and the reports read runs. All of it in integer microseconds of
simulated time: 0 is the start of the warm-up, the first arrival falls at or after `warmup_us`.
"""

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol

from gateway.admission import Ticket
from gateway.openai_api import Refusal
from gateway.routing import Lane
from placement.catalog import Catalog, ModelSpec, World
from placement.plan import Plan
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot
from prewarm.controller import Event
from prewarm.traces.records import Requests

LATE_US = 999_000_000
"""What a request counts in SLO figures that was refused, expired or cut."""


class Demand(Protocol):
    """Requests to come, and those of the days before. Streams are model ids."""

    @property
    @abstractmethod
    def models(self) -> tuple[str, ...]: ...
    @property
    @abstractmethod
    def start_us(self) -> int:
        """Trace time of the slice's first moment (its time of day matters to seasonal means)."""

    @property
    @abstractmethod
    def duration_us(self) -> int: ...
    @property
    @abstractmethod
    def past_days(self) -> int: ...

    def chunks(self) -> Iterator[Requests]:
        """In order of time, times from the slice's start. One is held in memory at a time."""

    def past(self, days_back: int) -> Iterator[Requests]:
        """The same slice of the day, `days_back` (1 to `past_days`) days before."""


class NodeEventKind(IntEnum):
    JOIN = 0
    """It is there from now on, empty, weights of every model where its spec says."""
    LOST = 1
    """It is gone at once, with all that runs on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    at_us: int
    node_id: str
    kind: NodeEventKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Nodes may be launched and given back while the simulation runs."""

    lead_us: int
    """From the launch request until the node takes actions. It is paid for meanwhile."""
    nodes_min: int
    idle_us: int
    """A node without serving or starting replicas this long is given back."""


Forecast = Literal["learned", "inverted", "perfect"]
"""From the days before; or, to ask what forecasts are worth, wrong on purpose or never wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that one run depends on. `catalog.nodes` are all that may ever exist.

    Nodes whose first event is a JOIN, and with `elastic` all but the first `nodes_min`, are absent
    at 0.
    """

    scenario: str
    world: World
    seed: int
    catalog: Catalog
    demand: Demand
    warmup_us: int = 60_000_000
    node_events: tuple[NodeEvent, ...] = ()
    elastic: Elastic | None = None
    forecast: Forecast = "learned"
    """What policies that forecast shall go by; the others never look."""
    labels: dict[str, str | float] = field(default_factory=dict)
    """Where the cell lies on its scenario's grid: `hour`, `alpha`, `rps`, `cv`."""


# --- who decides


class Brain(Protocol):
    """The live controller, or a baseline behind the same door."""

    def step(self, event: Event) -> Plan | None:
        """Take in one event; an `Observed` is answered with a plan."""

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        """Estimated wait for a serving replica; None: none ever will."""


class SimRequest(Ticket):
    """One request. The world fills in what became of it."""

    __slots__ = (
        "first_us",
        "index",
        "lane",
        "model",
        "on_lane",
        "output_tokens",
        "prompt_tokens",
        "replica_id",
    )

    def __init__(
        self,
        index: int,
        model: int,
        spec: ModelSpec,
        prompt_tokens: int,
        output_tokens: int,
        arrived_us: int,
        on_lane: Callable[["SimRequest", Lane], None],
    ) -> None:
        super().__init__(spec, None, arrived_us, arrived_us + spec.deadline_us)
        self.index = index
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.first_us = 0
        """Of its first token; -1 once it has ended without one."""
        self.replica_id = ""
        """Whose engine has it, or had it last when it ended."""
        self.lane: Lane | None = None
        """Our gateway's way to that engine; its slot is taken until the request ends there."""
        self.on_lane = on_lane

    def go(self, lane: Lane) -> None:
        self.on_lane(self, lane)


class Stage(Protocol):
    """What the world offers to a front."""

    @property
    @abstractmethod
    def now_us(self) -> int: ...

    def at(self, when_us: int, act: Callable[[], None]) -> None:
        """Call later; calls of one moment come in the order in which they were asked for."""

    def send(self, request: SimRequest, replica_id: str) -> None:
        """To this replica's engine. One that does not serve yet takes it and lets it wait."""

    def refuse(self, request: SimRequest, why: Refusal) -> None:
        """It ends here, unanswered."""

    def poke(self) -> None:
        """Something changed that a plan should know of."""

    def submit(self, plan: Plan) -> None:
        """Carry out a plan now that was made on the request path, not in a round."""


class Front(Protocol):
    """The gateway. Ours by default; a baseline may bring the one it was published with.

    The rest is what the control loop asks of its `Ground`.
    """

    def arrive(self, request: SimRequest) -> None: ...
    def ended(self, request: SimRequest, replica_id: str) -> None:
        """Its answer is complete (or broke off): its slot is free."""

    def lost(self, request: SimRequest, replica_id: str) -> None:
        """Its replica is gone before the first token: it goes elsewhere, or waits."""

    def on_snapshot(self, snapshot: ClusterSnapshot) -> None: ...
    def demand(self, now_us: int) -> tuple[ModelDemand, ...]: ...
    def in_flight(self) -> dict[str, int]: ...
    def fence(self, replica_ids: Iterable[str]) -> bool: ...
    def unfence(self, replica_ids: Iterable[str]) -> None: ...


ConcurrencyListener = Callable[[str, int, int], None]
"""Model, its requests held and in flight from now on, the time. Called at each arrival and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One way to run a cluster. `front` is left out by all that use our gateway."""

    brain: Brain
    tick_us: int = 500_000
    front: Callable[[Stage], Front] | None = None
    on_concurrency: ConcurrencyListener | None = None
    catalog: Catalog | None = None
    """The catalog to run with instead of the setup's, which differs in figures of its models alone:
    a partition that shares GPUs has smaller KV caches, an ablation has no lazy mapping."""


PolicyFactory = Callable[[Setup], Policy]


# --- what comes out


class Ending(IntEnum):
    """How a request ended. Nobody leaves and nothing is lost in a simulation."""

    ANSWERED = 0
    REFUSED = 1
    CUT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The cluster at one moment: GPUs by what they do, and models by their nearest rung."""

    at_us: int
    gpus_there: int
    gpus_serving: int
    """Held by starting, serving or draining replicas."""
    hbm_idle_bytes: int
    """Weights on GPUs whose replica does not serve."""
    held: int
    in_flight: int
    rungs: tuple[int, ...]
    """Per model of the catalog: the highest `Rung` that a replica of it stands on; 0 is none."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What happened. Arrays hold one entry a request, in order of arrival."""

    models: tuple[str, ...]
    model: "array[int]" = field(default_factory=lambda: array("h"))
    arrived_us: "array[int]" = field(default_factory=lambda: array("q"))
    ttft_us: "array[int]" = field(default_factory=lambda: array("q"))
    """`LATE_US` for whoever was not answered."""
    itl_us: "array[int]" = field(default_factory=lambda: array("i"))
    """Mean gap after the first token; 0 for answers of one token, -1 where not answered."""
    ending: "array[int]" = field(default_factory=lambda: array("b"))
    cold: "array[int]" = field(default_factory=lambda: array("b"))
    """1: held on arrival because no replica of its model served."""
    held: int = 0
    """Requests that waited in the gateway at all."""
    tokens_in: int = 0
    tokens_out: int = 0
    """Produced for requests that were answered."""
    gpu_us_paid: int = 0
    """Nodes from launch request to their end, times their GPUs, up to the last arrival's end."""
    gpu_us_serving: int = 0
    hbm_idle_byte_us: int = 0
    prewarm_hits: int = 0
    prewarm_misses: int = 0
    wasted_bytes: int = 0
    loads_bytes: int = 0
    """Bytes of weights that crossed a link to a GPU."""
    evictions: int = 0
    """Replicas whose weights were dropped from a GPU, or whose engine was ended."""
    timeline: list[Moment] = field(default_factory=list)
    ended_us: int = 0
    digest: str = ""
    """SHA-256 over every request's fate and every action's, in order."""
