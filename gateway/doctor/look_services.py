"""Looks at what a gateway would talk to: endpoints, engines, the gateway that runs. An edge.

In: what `warmtide up` would be started with. Out: facts, judged by `judge_catalog`. Never: loads a
model, follows a redirect, waits longer than its bounds.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec

from gateway import state_dir
from gateway.admin_client import request
from gateway.doctor import judge_catalog as judge
from gateway.doctor.finding import Finding, Setup
from placement.agent.nvml import used_bytes
from placement.catalog import EngineKind, ModelSpec
from placement.clock import monotonic_us
from placement.engines.vllm_find import VllmMissingError, vllm_for

ENDPOINT_WALL_S = 3.0
ANSWER_BYTES_MAX = 1_000_000
GATEWAY_WALL_S = 5.0
PROBE_WALL_S = 60.0
AT_ONCE = 16


def catalog(setup: Setup) -> Iterator[Finding]:
    yield from judge.judge_catalog(setup)
    if setup.catalog is not None:
        yield from judge.judge_secrets(setup.catalog, setup.secret_of)


# --- external servers


class _Listed(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Listed]


def endpoints(setup: Setup) -> Iterator[Finding]:
    """All at once, each within its time; told in the catalog's order."""
    models = setup.catalog.models if setup.catalog else ()
    pairs = [(spec, url) for spec in models for url in spec.endpoints]
    if not pairs:
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = pool.map(lambda pair: _ask(pair[1], _key(pair[0], setup)), pairs)
        for (spec, _), answer in zip(pairs, seen, strict=True):
            yield judge.judge_endpoint(spec, answer)


def _key(spec: ModelSpec, setup: Setup) -> str:
    return setup.secret_of(spec.api_key_env) if spec.api_key_env else ""


def _ask(url: str, key: str) -> judge.EndpointSeen:
    seen = judge.EndpointSeen(url)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream(
            "GET", f"{url}/v1/models", headers=headers, timeout=ENDPOINT_WALL_S, trust_env=False
        ) as answer:
            listed = _listed(_bounded(answer)) if answer.is_success else None
            return seen._replace(status=answer.status_code, listed=listed)
    except httpx.TimeoutException:
        return seen._replace(error=f"nothing came within {ENDPOINT_WALL_S:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return seen._replace(error=str(error) or type(error).__name__)


def _bounded(answer: httpx.Response) -> bytes:
    """What came within the bounds: a server may send for ever."""
    body = b""
    until_us = monotonic_us() + round(ENDPOINT_WALL_S * 1e6)
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX or monotonic_us() > until_us:
            break
    return body


def _listed(body: bytes) -> tuple[str, ...] | None:
    """The names of models; None where this is no such list."""
    try:
        return tuple(model.id for model in msgspec.json.decode(body, type=_Models).data)
    except msgspec.MsgspecError:
        return None


# --- engines


# In a process of its own: a binding built for another CPU ends whoever loads it.
_LLAMACPP = """
import json, sys
from placement.engines.llamacpp import find_weights
for source in sys.argv[1:]:
    try:
        path = find_weights(source)
        print(json.dumps({"source": source, "path": str(path), "size": path.stat().st_size}))
    except OSError as error:
        print(json.dumps({"source": source, "error": str(error)}))
"""


class _Found(msgspec.Struct):
    source: str
    path: str = ""
    size: int = 0
    error: str = ""


def llamacpp(setup: Setup) -> Iterator[Finding]:
    """The binding, and the weights, as an engine would look for them."""
    specs = _of(setup, EngineKind.LLAMACPP)
    if setup.catalog is None or not specs:
        return
    sources = sorted({spec.source for spec in specs})
    error, found = "", list[_Found]()
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _LLAMACPP, *sources],
            capture_output=True,
            text=True,
            timeout=PROBE_WALL_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        error = f"not within {PROBE_WALL_S:g} s"
    else:
        found = [msgspec.json.decode(line, type=_Found) for line in probe.stdout.splitlines()]
        if probe.returncode:
            said = probe.stderr.strip().splitlines() or [f"it ended with {probe.returncode}"]
            error = said[-1]
    weights = {f.source: judge.WeightsSeen(f.source, f.path, f.size, f.error) for f in found}
    yield from judge.judge_llamacpp(setup.catalog, weights, error=error)


def vllm(setup: Setup) -> Iterator[Finding]:
    if setup.catalog is None or not _of(setup, EngineKind.VLLM):
        return
    try:
        found = vllm_for(setup.catalog)
    except VllmMissingError as error:
        yield from judge.judge_vllm("", str(error))
    else:
        assert found is not None, "models ask for it"
        yield from judge.judge_vllm(f"vLLM {found.version} of {found.python}", found.remark)
    if any(not spec.on_cpu for spec in _of(setup, EngineKind.VLLM)):
        seen = sum(name.isdigit() for name in used_bytes())
        yield judge.judge_gpus(seen, setup.catalog)


def _of(setup: Setup, kind: EngineKind) -> list[ModelSpec]:
    models = setup.catalog.models if setup.catalog else ()
    return [spec for spec in models if spec.engine is kind]


# --- the gateway that runs


def gateway(setup: Setup) -> Iterator[Finding]:
    card = state_dir.read_card(setup.state_dir)
    phase = None if card else state_dir.read_phase(setup.state_dir)
    seen = None
    if card is not None:
        seen = judge.GatewaySeen(card.url, card.pid)
        try:
            answer = request(card, "GET", "/status", timeout_wall_s=GATEWAY_WALL_S)
            answer.raise_for_status()
            seen = seen._replace(status=answer.json())
        except (httpx.HTTPError, ValueError) as error:
            seen = seen._replace(error=str(error) or type(error).__name__)
    yield from judge.judge_gateway(seen, phase.told if phase else "", setup)
