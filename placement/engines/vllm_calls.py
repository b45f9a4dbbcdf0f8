"""vLLM's memory controls and its inference routes, as an agent calls them. ✎

The calls of each edge of the rung graph are a table (`vllm_table`). Stock vLLM answers 200 to
calls that do nothing (a wake that names an awake tag, level 1 → level 2), so a 200 proves little:
after a wake come `is_sleeping` and a canary, after every step a measurement of memory.
"""

from typing import Any

import httpx

from placement.catalog import EngineKind, ModelSpec, Task
from placement.engines.base import EngineError
from placement.engines.readings import Meaning, UnreadableError, read_metrics
from placement.engines.vllm_table import CALLS, RELOAD
from placement.snapshot import Rung

_CANARY = "The capital of France is"
"""Shorter than a block of the prefix cache, so that it is computed anew each time."""


async def step(client: httpx.AsyncClient, endpoint: str, at: Rung, to: Rung) -> None:
    """Make the calls of one edge; a wake to serving must leave nothing asleep."""
    for call in CALLS[at, to]:
        body = {"method": "reload_weights"} if call == RELOAD else None
        await ask(client, "POST", f"http://{endpoint}{call}", body)
    if to is Rung.SERVING:
        answer = await ask(client, "GET", f"http://{endpoint}/is_sleeping")
        if answer.get("is_sleeping") is not False:
            raise EngineError(f"engine at {endpoint} still sleeps after its wake: {answer}")


async def canary(client: httpx.AsyncClient, endpoint: str, spec: ModelSpec) -> str:
    """One token (or the largest part of a vector) for a known question, as text.

    One token, greedily, of an engine that does nothing else: more tokens, or others in the batch,
    and a near tie may fall differently from time to time. vLLM tells the token's number, as its
    text may be empty: a special token, or half a character.
    """
    body: dict[str, Any] = {"model": spec.id}
    one_token: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "seed": 0}
    if spec.engine is EngineKind.VLLM:
        one_token["return_token_ids"] = True
    if Task.COMPLETIONS in spec.tasks:
        body |= {"prompt": _CANARY, **one_token}
        answer = await ask(client, "POST", f"http://{endpoint}/v1/completions", body)
        choice = _first(answer, "choices")
        found = choice.get("token_ids") or choice.get("text")
    elif Task.CHAT in spec.tasks:
        message = {"role": "user", "content": _CANARY}
        body |= {"messages": [message], **one_token}
        answer = await ask(client, "POST", f"http://{endpoint}/v1/chat/completions", body)
        choice = _first(answer, "choices")
        found = choice.get("token_ids") or choice.get("message", {}).get("content")
    else:
        answer = await ask(
            client, "POST", f"http://{endpoint}/v1/embeddings", body | {"input": _CANARY}
        )
        found = _largest(_first(answer, "data").get("embedding"))
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
        answer = await ask(client, "POST", url, body, fine=(400,))
        error = answer.get("error")
        if isinstance(error, dict) and "already been loaded" not in str(error.get("message")):
            raise EngineError(f"adapter {adapter.id} from {adapter.source}: {error.get('message')}")


async def requests(client: httpx.AsyncClient, endpoint: str) -> int:
    """Requests that run and wait in an engine, by its own metrics."""
    try:
        answer = await client.get(f"http://{endpoint}/metrics")
    except httpx.HTTPError as error:
        raise EngineError(f"engine at {endpoint} does not answer: {error!r}") from error
    try:
        told = read_metrics(answer.text) if answer.is_success else {}
    except UnreadableError as error:
        raise EngineError(f"metrics of the engine at {endpoint}: {error}") from error
    return int(told.get(Meaning.RUNNING, 0) + told.get(Meaning.WAITING, 0))


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


def _largest(vector: object) -> str:
    """The place of a vector's largest part: rounding elsewhere does not matter."""
    if not isinstance(vector, list) or not vector:
        return ""
    parts = [abs(float(part)) for part in vector]
    return f"largest at {parts.index(max(parts))}"


def _first(answer: dict[str, Any], key: str) -> dict[str, Any]:
    listed = answer.get(key)
    return listed[0] if isinstance(listed, list) and listed else {}
