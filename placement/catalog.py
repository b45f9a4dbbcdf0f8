"""What the operator declared, in the core's own units: bytes, microseconds, counts.

In: nothing (`catalog_file` parses YAML into these). Out: frozen records that every decision reads.
Never: reads a file, knows YAML, holds a secret in the clear.
"""

from enum import StrEnum
from functools import cached_property
from typing import NewType

import msgspec

ModelId = NewType("ModelId", str)
NodeId = NewType("NodeId", str)
ReplicaId = NewType("ReplicaId", str)

CPU_DEVICE = "CPU"
"""The device type of nodes without GPUs that run vLLM on the CPU."""


class EngineKind(StrEnum):
    """Who serves a model. `EXTERNAL` is run by someone else: routed, measured, never managed."""

    EMULATED = "emulated"
    LLAMACPP = "llamacpp"
    VLLM = "vllm"
    EXTERNAL = "external"


class Task(StrEnum):
    """What a model can be asked for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small immutable record that also travels as JSON between processes."""


class Adapter(Frozen, frozen=True, kw_only=True):
    """A LoRA adapter: asked for by its own name, served on its base model's engines."""

    id: str
    source: str


class ServiceTimes(Frozen, frozen=True, kw_only=True):
    """Fixed service times that replace the hardware model, as published set-ups give them."""

    prefill_us: int
    decode_step_us: int


class Faults(Frozen, frozen=True, kw_only=True):
    """Seeded faults of an emulated engine. Shares are probabilities per opportunity, 0 to 1."""

    crash_per_request: float = 0.0
    hang_per_request: float = 0.0
    half_stream_per_request: float = 0.0
    failed_wake: float = 0.0
    memory_not_freed: float = 0.0
    link_slowdown: float = 1.0


class World(StrEnum):
    """Whose mechanism moves a model between rungs (`edges`). `S`: stock vLLM. `W`: WarmServe's."""

    S = "S"
    W = "W"


class Mechanism(Frozen, frozen=True, kw_only=True):
    """What an engine can do with its memory. Live engines are stock; `W` is for simulation."""

    world: World = World.S
    lazy_kv: bool = True
    """In world W: a launch maps the KV cache while it serves, instead of wholly before."""
    launch_us: int | None = None
    """In world W: what a launch takes. None: `constants.LAUNCH_S`."""


class ModelSpec(Frozen, frozen=True, kw_only=True, cache_hash=True):
    """One model. `*_bytes` of weights and host are totals; `kv_cache_bytes` is per GPU."""

    id: ModelId
    engine: EngineKind
    tasks: tuple[Task, ...] = (Task.CHAT, Task.COMPLETIONS)
    source: str = ""
    aliases: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    # Shape of the model: what the service-time and memory models read.
    weights_bytes: int = 0
    parameters: int = 0
    layers: int = 32
    kv_bytes_per_token: int = 0
    gpus: int = 1
    kv_cache_bytes: int = 0
    residue_bytes: int = 0
    max_model_len: int = 8192
    max_num_seqs: int = 32
    service: ServiceTimes | None = None
    faults: Faults = Faults()
    engine_args: tuple[str, ...] = ()
    on_cpu: bool = False
    """Its devices are shares of a node's memory, not GPUs: real vLLM, for want of a GPU."""
    mechanism: Mechanism = Mechanism()
    # What the operator wants of it.
    min_replicas: int = 0
    max_replicas: int = 8
    priority: int = 0
    deadline_us: int = 120_000_000
    ttft_slo_us: int = 500_000
    itl_slo_us: int = 50_000
    waiting_to_idle: float | None = None
    """A price ratio of its own. None: the policy's."""
    # What is expected of it while it has little past of its own.
    like: str = ""
    """The id of the model that it is expected to resemble."""
    expected_per_s: float = 0.0
    """Requests a second. 0: not said."""
    # External engines only.
    endpoints: tuple[str, ...] = ()
    upstream_model: str = ""
    api_key_env: str = ""

    @property
    def managed(self) -> bool:
        return self.engine is not EngineKind.EXTERNAL

    @property
    def on_gpu(self) -> bool:
        """Emulated and vLLM engines hold sets of devices; llama.cpp here holds none."""
        return self.engine in (EngineKind.EMULATED, EngineKind.VLLM)

    @property
    def weights_per_gpu_bytes(self) -> int:
        return -(-self.weights_bytes // self.gpus)


class Links(Frozen, frozen=True, kw_only=True, cache_hash=True):
    """Bytes per second one stream gets, and all streams of a node together (see `constants`)."""

    h2d_stream: int
    h2d_total: int
    d2h_stream: int
    d2h_total: int
    loader_stream: int
    loader_total: int
    disk: int
    object_store: int


class NodeSpec(Frozen, frozen=True, kw_only=True, cache_hash=True):
    """One node of the fleet: `gpus` equal GPUs, host memory for parked weights, links."""

    id: NodeId
    gpus: int
    gpu_type: str
    hbm_bytes: int
    host_bytes: int
    links: Links
    preloaded: bool = True
    """Weights of every model lie in the page cache at start (else on disk)."""

    @property
    def on_cpu(self) -> bool:
        """Its devices are shares of its memory, on which vLLM computes with the CPU."""
        return self.gpu_type == CPU_DEVICE


class Tenant(Frozen, frozen=True, kw_only=True):
    """Who may ask, for what, and how much at once. Keys are `sha256:` digests, never clear text."""

    id: str
    key_sha256: tuple[str, ...]
    models: tuple[str, ...] = ()
    max_in_flight: int = 0
    """0 is unlimited. Counts held and running requests."""


class Policy(Frozen, frozen=True, kw_only=True):
    """How the controller behaves."""

    kind: str = "reactive"
    waiting_to_idle: float = 9.0
    scale_out_load: float = 0.8
    scale_in_load: float = 0.5
    idle_park_us: int = 300_000_000
    """A serving replica without requests this long is drained softly and stepped down."""
    held_per_model_max: int = 2048
    rate_half_life_us: int = 300_000_000


class HistoryKept(Frozen, frozen=True, kw_only=True):
    """How long rows of the demand history are kept, by their width."""

    fine_us: int = 48 * 3_600_000_000
    minutes_us: int = 30 * 86_400_000_000
    five_us: int = 400 * 86_400_000_000


class TelemetryPolicy(Frozen, frozen=True, kw_only=True):
    """What is observed beside the requests themselves, and where traces go."""

    history: HistoryKept = HistoryKept()
    scrape_us: int = 5_000_000
    """How often engines' metrics are read; three times this old they are stale. 0: never."""
    otlp_url: str = ""
    """OTLP over HTTP: where spans are sent. Empty: nowhere."""
    trace_share: float = 1.0
    """Of requests that bring no sampling decision of their own."""


class DemandEvent(Frozen, frozen=True, kw_only=True):
    """Something announced that changes what is asked: a launch, a campaign, a weekly batch."""

    name: str
    """Events of one name are occasions of the same thing, and teach about each other."""
    models: tuple[str, ...] = ()
    """Ids. Empty: all."""
    start_us: int
    end_us: int
    uplift: float = 1.0
    """The factor on what would be usual."""
    expected_per_s: float = 0.0
    """Requests a second, for models that have no usual. 0: not said, `uplift` holds."""

    def touches(self, model: str) -> bool:
        return not self.models or model in self.models


class ForecastPolicy(Frozen, frozen=True, kw_only=True):
    """What forecasts may know of the world, and who makes them."""

    time_zone: str = "UTC"
    """IANA: the clock that people ask by."""
    country: str = ""
    """ISO code, for public holidays. Empty: none."""
    forecasters: tuple[str, ...] = ()
    """Who takes part beside those that are built in: plug-ins, by name."""
    heavy: tuple[str, ...] = ("prophet", "mstl")
    """Who takes part of those that fit for seconds, in a process of their own."""
    events: tuple[DemandEvent, ...] = ()


class Catalog(Frozen, frozen=True, kw_only=True, dict=True):
    """Everything declared in one file, validated, with its digest as version."""

    version: str
    models: tuple[ModelSpec, ...]
    nodes: tuple[NodeSpec, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    policy: Policy = Policy()
    telemetry: TelemetryPolicy = TelemetryPolicy()
    forecast: ForecastPolicy = ForecastPolicy()
    time_scale: float = 1.0
    seed: int = 0
    vllm_python: str = ""
    """The interpreter that has vLLM, where the operator named one."""

    def model(self, model_id: str) -> ModelSpec | None:
        return self._models.get(model_id)

    def waiting_to_idle(self, model_id: str) -> float:
        """The price ratio of a model: its own, else the policy's."""
        spec = self.model(model_id)
        own = None if spec is None else spec.waiting_to_idle
        return self.policy.waiting_to_idle if own is None else own

    def node(self, node_id: str) -> NodeSpec | None:
        return self._nodes.get(node_id)

    @cached_property
    def _models(self) -> dict[str, ModelSpec]:
        return {m.id: m for m in self.models}

    @cached_property
    def _nodes(self) -> dict[str, NodeSpec]:
        return {n.id: n for n in self.nodes}

    def names(self) -> dict[str, tuple[ModelSpec, Adapter | None]]:
        """Every name a client may ask for: ids, aliases and adapters, to what serves it."""
        found: dict[str, tuple[ModelSpec, Adapter | None]] = {}
        for spec in self.models:
            found[spec.id] = (spec, None)
            found.update(dict.fromkeys(spec.aliases, (spec, None)))
            found.update({adapter.id: (spec, adapter) for adapter in spec.adapters})
        return found
