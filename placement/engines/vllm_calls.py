"""vLLM's memory controls and its inference routes, as an agent calls them. ✎

The calls of each edge of the rung graph are a table. Stock vLLM answers 200 to calls that do
nothing (a wake that names an awake tag, level 1 → level 2), so a 200 proves little: after a wake
come `is_sleeping` and a canary, after every step a measurement of memory.
"""

from typing import Any

import httpx

from placement.catalog import ModelSpec, Task
from placement.engines.base import EngineError
from placement.snapshot import Rung

_CANARY = "The capital of France is"

_SLEEP_PAUSE = "/sleep?level=0&mode=wait"
_RELEASE_KV = "/release_kv_cache_memory"
_WAKE = "/wake_up"
_WAKE_WEIGHTS = "/wake_up?tags=weights"
_WAKE_KV = "/wake_up?tags=kv_cache"
_WAKE_SCHEDULING = "/wake_up?tags=scheduling"
_RELOAD = "/collective_rpc"
_RESET_PREFIX = "/reset_prefix_cache"

# `mode=wait`: the default aborts what runs. Waking from level 2 goes weights, reload, KV: with any
# other order the engine answers garbage with 200.
CALLS: dict[tuple[Rung, Rung], tuple[str, ...]] = {
    (Rung.SERVING, Rung.WARM): (_SLEEP_PAUSE, _RELEASE_KV),
    (Rung.SERVING, Rung.PARKED): ("/sleep?level=1&mode=wait",),
    (Rung.SERVING, Rung.SHED): ("/sleep?level=2&mode=wait",),
    (Rung.WARM, Rung.PARKED): ("/sleep?level=1&mode=wait",),
    (Rung.WARM, Rung.SHED): ("/sleep?level=2&mode=wait",),
    (Rung.WARM, Rung.SERVING): (_WAKE_KV, _WAKE_SCHEDULING, _RESET_PREFIX),
    (Rung.PARKED, Rung.WARM): (_WAKE_WEIGHTS,),
    (Rung.PARKED, Rung.SERVING): (_WAKE,),
    (Rung.SHED, Rung.WARM): (_WAKE_WEIGHTS, _RELOAD),
    (Rung.SHED, Rung.SERVING): (
        _WAKE_WEIGHTS,
        _RELOAD,
        _WAKE_KV,
        _WAKE_SCHEDULING,
        _RESET_PREFIX,
    ),
}


async def step(client: httpx.AsyncClient, endpoint: str, at: Rung, to: Rung) -> None:
    """Make the calls of one edge; a wake to serving must leave nothing asleep."""
    for call in CALLS[at, to]:
        body = {"method": "reload_weights"} if call == _RELOAD else None
        await ask(client, "POST", f"http://{endpoint}{call}", body)
    if to is Rung.SERVING:
        answer = await ask(client, "GET", f"http://{endpoint}/is_sleeping")
        if answer.get("is_sleeping") is not False:
            raise EngineError(f"engine at {endpoint} still sleeps after its wake: {answer}")


async def canary(client: httpx.AsyncClient, endpoint: str, spec: ModelSpec) -> str:
    """One token (or one vector) for a known question, as text."""
    body: dict[str, Any] = {"model": spec.id}
    if Task.COMPLETIONS in spec.tasks:
        body |= {"prompt": _CANARY, "max_tokens": 1, "temperature": 0, "seed": 0}
        answer = await ask(client, "POST", f"http://{endpoint}/v1/completions", body)
        found = _first(answer, "choices").get("text")
    elif Task.CHAT in spec.tasks:
        message = {"role": "user", "content": _CANARY}
        body |= {"messages": [message], "max_tokens": 1, "temperature": 0, "seed": 0}
        answer = await ask(client, "POST", f"http://{endpoint}/v1/chat/completions", body)
        found = _first(answer, "choices").get("message", {}).get("content")
    else:
        answer = await ask(
            client, "POST", f"http://{endpoint}/v1/embeddings", body | {"input": _CANARY}
        )
        found = _first(answer, "data").get("embedding")
    if not found:
        raise EngineError(f"engine at {endpoint} gave the canary no answer: {answer}")
    return str(found)[:200]


async def load_adapters(client: httpx.AsyncClient, endpoint: str, spec: ModelSpec) -> None:
    """The adapters of the model, each from its source, and no others. One that is loaded already is
    refused with 400, one that is gone already with 404, and both are fine."""
    wanted = {adapter.id: adapter.source for adapter in spec.adapters}
    listed = (await ask(client, "GET", f"http://{endpoint}/v1/models")).get("data", ())
    loaded = [entry for entry in listed if entry.get("parent")]
    for name in [m["id"] for m in loaded if wanted.get(m["id"]) != m.get("root")]:
        url = f"http://{endpoint}/v1/unload_lora_adapter"
        await ask(client, "POST", url, {"lora_name": name}, fine=(404,))
    for adapter in spec.adapters:
        url = f"http://{endpoint}/v1/load_lora_adapter"
        body = {"lora_name": adapter.id, "lora_path": adapter.source}
        await ask(client, "POST", url, body, fine=(400,))


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    body: object = None,
    *,
    fine: tuple[int, ...] = (),
) -> dict[str, Any]:
    """One request to an engine. Anything but a 2xx (or a status in `fine`) is an `EngineError`."""
    try:
        answer = await client.request(method, url, json=body)
    except httpx.HTTPError as error:
        raise EngineError(f"{method} {url}: {type(error).__name__} {error}") from error
    if not answer.is_success and answer.status_code not in fine:
        raise EngineError(f"{method} {url}: {answer.status_code} {answer.text[:300]}")
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _first(answer: dict[str, Any], key: str) -> dict[str, Any]:
    listed = answer.get(key)
    return listed[0] if isinstance(listed, list) and listed else {}
