"""What a running vLLM server offers, read from what it says of itself.

In: its `/version` and `/openapi.json`. Out: `Offered`, and the steps of the rung graph that it
lacks, in words. Never: asks anybody, guesses from a version what a server can do.
"""

import re
from collections.abc import Mapping
from typing import Any

from placement.catalog import Frozen
from placement.engines.vllm_table import CALLS, RELEASE_KV
from placement.snapshot import Lack, Rung

OLDEST, NEWEST_TRIED = (0, 32), (0, 33)
"""The calls of the rungs were written for these versions; only 0.32 has been run."""

_KNOWN_CALLS = {
    "sleep": ("post", "/sleep"),
    "wake_up": ("post", "/wake_up"),
    "is_sleeping": ("get", "/is_sleeping"),
    "release_kv_cache_memory": ("post", "/release_kv_cache_memory"),
    "collective_rpc": ("post", "/collective_rpc"),
    "reset_prefix_cache": ("post", "/reset_prefix_cache"),
    "load_lora_adapter": ("post", "/v1/load_lora_adapter"),
    "chat": ("post", "/v1/chat/completions"),
    "completions": ("post", "/v1/completions"),
    "embeddings": ("post", "/v1/embeddings"),
    "responses": ("post", "/v1/responses"),
    "messages": ("post", "/v1/messages"),
    "tokenize": ("post", "/tokenize"),
}
_RELEASE = RELEASE_KV.strip("/")


class Offered(Frozen, frozen=True, kw_only=True):
    """A server's version and those of the known calls that it has."""

    version: str
    calls: tuple[str, ...]


def offered(version: str, openapi: Mapping[str, Any]) -> Offered:
    """Read a server's own description. A sleep that cannot wait for running requests is none."""
    paths: Mapping[str, Any] = openapi.get("paths") or {}
    there = {n for n, (method, path) in _KNOWN_CALLS.items() if method in paths.get(path, {})}
    if "sleep" in there and not _takes(paths["/sleep"]["post"], "mode"):
        there.discard("sleep")
    return Offered(version=version, calls=tuple(sorted(there)))


def _takes(operation: Mapping[str, Any], parameter: str) -> bool:
    return any(p.get("name") == parameter for p in operation.get("parameters", ()))


def lacks(offer: Offered, *, on_cpu: bool, adapted: bool = False) -> tuple[Lack, ...]:
    """Every edge that this server cannot go, with the reason. A rung from which there is no way
    back to serving is not gone to."""
    why = {edge: _obstacle(offer, *edge, on_cpu=on_cpu, adapted=adapted) for edge in CALLS}
    where = f"vLLM {offer.version}{' on a CPU' if on_cpu else ''}"
    found = []
    for at, to in CALLS:
        reason = why[at, to] or why.get((to, Rung.SERVING), "")
        if reason:
            step = f"{at.name.lower()} → {to.name.lower()}"
            found.append(Lack(at=at, to=to, why=f"{where} cannot go {step}: {reason}"))
    return tuple(found)


def _obstacle(offer: Offered, at: Rung, to: Rung, *, on_cpu: bool, adapted: bool) -> str:
    """Why not, in words; empty where nothing stands in the way.

    On the CPU `release_kv_cache_memory` is listed and answers 500. Whether loaded adapters come
    back after a level-2 sleep is not known: models that have some are not shed on GPUs.
    """
    needed = [call.split("?")[0].strip("/") for call in CALLS[at, to]]
    if to is Rung.SERVING:
        needed.append("is_sleeping")
    missing = [name for name in dict.fromkeys(needed) if name not in offer.calls]
    if on_cpu and _RELEASE in needed:
        missing = [_RELEASE]
    if missing:
        return f"it offers no usable {', '.join(missing)}"
    if adapted and not on_cpu and to is Rung.SHED:
        return "its adapters might be lost"
    return ""


def remark(version: str) -> str:
    """What to say of a version that was not tried; empty for one that was."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        return f"vLLM {version!r} has a version of an unknown form; tried were {_tried()}"
    number = (int(found[1]), int(found[2]))
    if number < OLDEST:
        return f"vLLM {version} is too old: install {OLDEST[0]}.{OLDEST[1]} or later"
    if number > NEWEST_TRIED:
        return f"vLLM {version} is newer than what the rung calls were written for, {_tried()}"
    return ""


def too_old(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < OLDEST


def _tried() -> str:
    return f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST_TRIED[0]}.{NEWEST_TRIED[1]}"
