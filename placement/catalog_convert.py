"""The file's entries in, the core's records out, with every default filled in.

In: entries of `catalog_shape`. Out: `ModelSpec`, `NodeSpec`, `Tenant`, policies.
Never: fails; what may not be converted was found by `catalog_check` before it.
"""

from placement import constants as c
from placement.catalog import (
    CPU_DEVICE,
    Adapter,
    DemandEvent,
    EngineKind,
    Faults,
    ForecastPolicy,
    HistoryKept,
    Links,
    ModelId,
    ModelSpec,
    NodeId,
    NodeSpec,
    Policy,
    ServiceTimes,
    Task,
    TelemetryPolicy,
    Tenant,
)
from placement.catalog_shape import (
    EventEntry,
    FleetEntry,
    ForecastEntry,
    ModelEntry,
    NodeEntry,
    PolicyEntry,
    TelemetryEntry,
    TenantEntry,
)
from placement.catalog_when import HEAVY, moment_us
from placement.edges import DEFAULT_LINKS

KV_CACHE_DEFAULT_MAX = 20_000_000_000
KV_PER_TOKEN_DEFAULT = 131_072
SLOTS_DEFAULT = {EngineKind.LLAMACPP: 8, EngineKind.EXTERNAL: 1024}


def model_spec(entry: ModelEntry, fleet: FleetEntry) -> ModelSpec:
    """A vLLM model runs on the CPU where the fleet has nodes for that: one installation of vLLM
    is built for one kind of device."""
    engine = EngineKind(entry.engine)
    on_cpu = engine is EngineKind.VLLM and any(n.gpu == CPU_DEVICE for n in fleet.nodes)
    slots = entry.max_num_seqs or SLOTS_DEFAULT.get(engine, 32)
    on_gpu = engine in (EngineKind.EMULATED, EngineKind.VLLM)
    kv_per_token = entry.kv_bytes_per_token or (KV_PER_TOKEN_DEFAULT if on_gpu else 0)
    weights = entry.weights or 0
    return ModelSpec(
        id=ModelId(entry.id),
        engine=engine,
        tasks=_tasks(entry),
        source=entry.source,
        aliases=tuple(entry.aliases),
        adapters=tuple(Adapter(id=a.id, source=a.source) for a in entry.adapters),
        weights_bytes=weights,
        parameters=weights // 2 if entry.parameters is None else entry.parameters,
        layers=entry.layers,
        kv_bytes_per_token=kv_per_token,
        gpus=entry.gpus,
        kv_cache_bytes=_kv_cache(entry, slots, kv_per_token) if on_gpu else 0,
        residue_bytes=_residue(entry) if on_gpu else 0,
        max_model_len=entry.max_model_len,
        max_num_seqs=slots,
        service=_service(entry),
        faults=Faults(**entry.faults.model_dump()) if entry.faults else Faults(),
        engine_args=tuple(entry.engine_args),
        on_cpu=on_cpu,
        min_replicas=entry.min_replicas,
        max_replicas=max_replicas(entry),
        priority=entry.priority,
        deadline_us=entry.deadline,
        ttft_slo_us=entry.slo.ttft,
        itl_slo_us=entry.slo.itl,
        waiting_to_idle=entry.waiting_to_idle,
        like=entry.like or "",
        expected_per_s=entry.expected_rate or 0.0,
        endpoints=tuple(entry.endpoints),
        upstream_model=entry.upstream_model,
        api_key_env=entry.api_key_env or "",
    )


def max_replicas(entry: ModelEntry) -> int:
    if entry.max_replicas is not None:
        return entry.max_replicas
    return max(1 if entry.engine == "llamacpp" else 8, entry.min_replicas)


def node_ids(entry: NodeEntry) -> list[str]:
    if entry.count is None:
        return [entry.id]
    return [f"{entry.id}{i}" for i in range(entry.count)]


def node_specs(entry: NodeEntry) -> list[NodeSpec]:
    known = c.GPU_TYPES[entry.gpu].hbm_bytes if entry.gpu else 0
    given = {k: v for k, v in entry.links.model_dump().items() if v is not None}
    defaults = {name: getattr(DEFAULT_LINKS, name) for name in Links.__struct_fields__}
    links = Links(**(defaults | given))
    return [
        NodeSpec(
            id=NodeId(node_id),
            gpus=entry.gpus,
            gpu_type=entry.gpu or "",
            hbm_bytes=entry.hbm or known,
            host_bytes=entry.host_memory,
            links=links,
            preloaded=entry.preloaded,
        )
        for node_id in node_ids(entry)
    ]


def tenant(entry: TenantEntry) -> Tenant:
    return Tenant(
        id=entry.id,
        key_sha256=tuple(entry.keys),
        models=tuple(entry.models),
        max_in_flight=entry.max_in_flight,
    )


def policy(entry: PolicyEntry) -> Policy:
    return Policy(
        kind=entry.kind,
        waiting_to_idle=entry.waiting_to_idle,
        scale_out_load=entry.scale_out_load,
        scale_in_load=entry.scale_in_load,
        idle_park_us=entry.idle_park,
        held_per_model_max=entry.held_per_model_max,
        rate_half_life_us=entry.rate_half_life,
    )


def telemetry(entry: TelemetryEntry) -> TelemetryPolicy:
    return TelemetryPolicy(
        history=HistoryKept(
            fine_us=entry.keep_10s, minutes_us=entry.keep_1min, five_us=entry.keep_5min
        ),
        scrape_us=entry.scrape,
        otlp_url=entry.otlp or "",
        trace_share=entry.trace_share,
    )


def forecast(entry: ForecastEntry) -> ForecastPolicy:
    return ForecastPolicy(
        time_zone=entry.time_zone,
        country=entry.country or "",
        forecasters=tuple(dict.fromkeys(entry.forecasters or ())),
        heavy=HEAVY if entry.heavy is None else entry.heavy,
        events=tuple(event(each, entry.time_zone) for each in entry.events),
    )


def event(entry: EventEntry, zone: str) -> DemandEvent:
    start_us = moment_us(entry.start, zone)
    return DemandEvent(
        name=entry.name,
        models=tuple(dict.fromkeys(entry.models)),
        start_us=start_us,
        end_us=start_us + entry.duration,
        uplift=1.0 if entry.uplift is None else entry.uplift,
        expected_per_s=entry.expected or 0.0,
    )


def _tasks(entry: ModelEntry) -> tuple[Task, ...]:
    """Of an external server we know nothing: it may say itself what it cannot do."""
    if entry.tasks is not None:
        return tuple(dict.fromkeys(Task(t) for t in entry.tasks))
    return tuple(Task) if entry.engine == "external" else (Task.CHAT, Task.COMPLETIONS)


def _service(entry: ModelEntry) -> ServiceTimes | None:
    if entry.service is None:
        return None
    return ServiceTimes(prefill_us=entry.service.prefill, decode_step_us=entry.service.decode_step)


def _kv_cache(entry: ModelEntry, slots: int, kv_per_token: int) -> int:
    """Room for a full batch of the longest requests, as far as that is reasonable."""
    if entry.kv_cache is not None:
        return entry.kv_cache
    full = slots * entry.max_model_len * kv_per_token // entry.gpus
    return min(full, KV_CACHE_DEFAULT_MAX)


def _residue(entry: ModelEntry) -> int:
    if entry.residue is not None:
        return entry.residue
    return int((c.RESIDUE_TP1_BYTES if entry.gpus == 1 else c.RESIDUE_TP_BYTES).value)
