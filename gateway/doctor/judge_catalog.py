"""What a catalog, its engines and the running gateway look like to a doctor. Pure.

In: the catalog, what endpoints, engines and the admin port said. Out: findings. Never: asks anybody
itself; shows a key.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.checks import missing_secrets, open_to_others, secrets_wanted, unfit_secrets
from gateway.doctor.finding import Finding, Setup, fail, ok, warn
from placement.catalog import Catalog, EngineKind, ModelSpec
from placement.catalog_units import human_bytes

LISTED_MAX = 5


def judge_catalog(setup: Setup) -> Iterator[Finding]:
    """What `warmtide catalog check` says, and whether it may be served on this address."""
    for problem in setup.problems:
        field = f"{problem.field}: " if problem.field else ""
        yield fail(
            "catalog", f"{problem.file}:{problem.line}: {field}{problem.what}", problem.remedy
        )
    if setup.catalog is None:
        return
    catalog = setup.catalog
    counts = f"{len(catalog.models)} models, {len(catalog.nodes)} nodes"
    yield ok("catalog", f"{setup.catalog_path} is good: {counts}, version {catalog.version}")
    if open_to_others(catalog, setup.host):
        found = f"{setup.host} is reachable from elsewhere, and the catalog declares no tenants"
        yield fail(
            "host", found, "add `tenants:` with keys (`warmtide key new`), or keep 127.0.0.1"
        )


def judge_secrets(catalog: Catalog, secret_of: Callable[[str], str]) -> Iterator[Finding]:
    wanted = secrets_wanted(catalog)
    missing, unfit = missing_secrets(catalog, secret_of), unfit_secrets(catalog, secret_of)
    for name in missing:
        users = ", ".join(spec.id for spec in catalog.models if spec.api_key_env == name)
        mend = f"`export {name}=...` where `warmtide up` is called"
        yield fail("secrets", f"{name} is not set: {users} would have no API key", mend)
    for name in unfit:
        found = f"the key in {name} has a character that no header can carry"
        yield fail("secrets", found, f"set {name} anew, without line breaks")
    if wanted and not missing and not unfit:
        yield ok("secrets", f"{', '.join(wanted)} set")


# --- external servers


class EndpointSeen(NamedTuple):
    """What `GET /v1/models` came to: a status and the models listed, or why there was no answer."""

    url: str
    status: int = 0
    listed: tuple[str, ...] | None = None
    error: str = ""


def judge_endpoint(spec: ModelSpec, seen: EndpointSeen) -> Finding:
    """An external server is not ours to start, so its trouble is a warning."""
    where = f"{spec.id}: {seen.url}"
    if seen.error:
        mend = f"start that server, or mend `endpoints` of {spec.id}: its requests would be refused"
        return warn("endpoints", f"{where} does not answer: {seen.error}", mend)
    if seen.status in (401, 403):
        named = (
            f"the key in {spec.api_key_env}" if spec.api_key_env else "`api_key_env`: it has none"
        )
        return warn("endpoints", f"{where} answers {seen.status}", f"check {named}")
    if seen.status >= 500:
        return warn("endpoints", f"{where} answers {seen.status}", "look at that server's log")
    asked = spec.upstream_model or spec.id
    if seen.listed is not None and asked not in seen.listed:
        known = ", ".join(seen.listed[:LISTED_MAX]) or "none"
        mend = f"set `upstream_model` of {spec.id} to a name that it lists"
        return warn("endpoints", f"{where} lists no model {asked}, but: {known}", mend)
    return ok("endpoints", f"{where} answers")


# --- engines


class WeightsSeen(NamedTuple):
    """Where a source's file lies, or why it is not found."""

    source: str
    path: str = ""
    size_bytes: int = 0
    error: str = ""


def judge_llamacpp(
    catalog: Catalog, weights: Mapping[str, WeightsSeen], *, error: str
) -> Iterator[Finding]:
    """`error`: why the binding cannot be loaded; empty where it can."""
    if error:
        yield fail(
            "llamacpp",
            f"xllamacpp cannot be loaded: {error}",
            "`make setup`, or `pip install xllamacpp`",
        )
        return
    for spec in catalog.models:
        if spec.engine is not EngineKind.LLAMACPP:
            continue
        seen = weights[spec.source]
        if seen.error:
            mend = f"`make setup`, or mend `source` of {spec.id}"
            yield fail("llamacpp", f"{spec.id}: {seen.error}", mend)
        else:
            yield ok("llamacpp", f"{spec.id}: {seen.path} ({human_bytes(seen.size_bytes)})")


def judge_vllm(found: str, trouble: str) -> Iterator[Finding]:
    """`found`: which vLLM, and where; empty where there is none. `trouble`: what is amiss."""
    if not found:
        yield fail("vllm", "no vLLM for this catalog's models", trouble)
    elif trouble:
        yield warn("vllm", found, trouble)
    else:
        yield ok("vllm", found)


def judge_gpus(seen: int, catalog: Catalog) -> Finding:
    """`seen`: how many a driver shows; 0 where no driver answers."""
    asked = max((node.gpus for node in catalog.nodes if not node.on_cpu), default=0)
    if not seen:
        mend = "install NVIDIA's driver (`nvidia-smi` shows it), or write `gpu: CPU` at the node"
        return fail("gpus", "no NVIDIA driver answers, and vLLM models want GPUs", mend)
    if seen < asked:
        mend = "mend `gpus` of the catalog's nodes"
        return fail("gpus", f"the driver sees {seen} GPUs, a node of the catalog has {asked}", mend)
    return ok("gpus", f"the driver sees {seen}")


# --- the gateway that runs


class GatewaySeen(NamedTuple):
    """What the admin port said; `error` where it did not answer."""

    url: str
    pid: int
    status: Mapping[str, Any] = {}
    error: str = ""


def judge_gateway(seen: GatewaySeen | None, busy: str, setup: Setup) -> Iterator[Finding]:
    """`busy`: what a gateway on its way up or down does; empty where there is none."""
    if seen is None and busy:
        yield warn("gateway", f"one is busy {busy}", "wait for it, or end it: `warmtide down`")
        return
    if seen is None:
        yield ok("gateway", f"none runs over {setup.state_dir}: `warmtide up` starts one")
        return
    name = f"{seen.url} (pid {seen.pid})"
    if seen.error:
        mend = f"look at {setup.state_dir}/gateway.log; `warmtide down` ends it"
        yield fail("gateway", f"the admin port of {name} does not answer: {seen.error}", mend)
        return
    if seen.status["stopping"]:
        yield warn("gateway", f"{name} is stopping", "wait, then `warmtide up`")
    elif setup.catalog and seen.status["catalog_version"] != setup.catalog.version:
        found = f"{name} runs catalog {seen.status['catalog_version']}, not {setup.catalog_path}"
        mend = f"`warmtide catalog apply {setup.catalog_path}` if that is the one you want"
        yield warn("gateway", found, mend)
    else:
        yield ok("gateway", f"{name} answers, with catalog {seen.status['catalog_version']}")
    yield from _judge_nodes(seen.status["nodes"], setup)


def _judge_nodes(nodes: Sequence[Mapping[str, Any]], setup: Setup) -> Iterator[Finding]:
    for node in nodes:
        if not node["alive"]:
            mend = f"look at {setup.state_dir}/nodes/{node['node']}/agent.log"
            yield fail("nodes", f"{node['node']} is dead: its agent has long been silent", mend)
    alive = sum(bool(node["alive"]) for node in nodes)
    if alive == len(nodes):
        yield ok("nodes", f"{alive} of {alive} alive")
