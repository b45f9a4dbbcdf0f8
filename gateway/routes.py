"""The routes that become journeys, in one table: what each needs, speaks, and who serves it. Pure.

In: a path. Out: its `Route`: the task a model must serve, how the body is read, the dialect of
errors and events, the engine kinds that serve it. In: a catalog's names. Out: who of them would
serve a route. Never: keeps state.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from gateway import messages_api, responses_api, tokens_api
from gateway.dialects import OPENAI, Dialect
from gateway.openai_api import Head, parse_head
from placement.catalog import EngineKind, ModelSpec, Task, Tenant

# Tuples, not sets: looking an Enum up by its hash runs in Python, and every request does.
_OURS = (EngineKind.EMULATED, EngineKind.LLAMACPP, EngineKind.VLLM)
_NAMES_MAX = 8


class Route(NamedTuple):
    """One route of inference. Of external servers nobody knows beforehand what they serve."""

    path: str
    task: Task | None
    """What a model must serve; None where any will do."""
    read: Callable[[bytes], Head]
    operation: str
    """OpenTelemetry's `gen_ai.operation.name`; its list has no counting of tokens."""
    dialect: Dialect = OPENAI
    kinds: tuple[EngineKind, ...] = _OURS
    headers: tuple[bytes, ...] = ()
    """Headers of the client's that its engine gets."""
    extra: bool = True
    """Not every server that calls itself compatible with OpenAI has it."""
    asks_usage: bool = False
    """Streams tell usage only where they are asked to."""


_TABLE = (
    Route(
        "/v1/chat/completions",
        Task.CHAT,
        partial(parse_head, Task.CHAT),
        "chat",
        extra=False,
        asks_usage=True,
    ),
    Route(
        "/v1/completions",
        Task.COMPLETIONS,
        partial(parse_head, Task.COMPLETIONS),
        "text_completion",
        extra=False,
        asks_usage=True,
    ),
    Route(
        "/v1/embeddings",
        Task.EMBEDDINGS,
        partial(parse_head, Task.EMBEDDINGS),
        "embeddings",
        kinds=(EngineKind.EMULATED, EngineKind.VLLM),
        extra=False,
    ),
    Route("/v1/responses", Task.CHAT, responses_api.read_response, "chat", responses_api.RESPONSES),
    Route(
        "/v1/messages",
        Task.CHAT,
        messages_api.read_message,
        "chat",
        messages_api.MESSAGES,
        headers=messages_api.HEADERS,
    ),
    Route(
        "/v1/messages/count_tokens",
        Task.CHAT,
        messages_api.read_token_count,
        "count_tokens",
        messages_api.MESSAGES,
        headers=messages_api.HEADERS,
    ),
    Route("/tokenize", None, tokens_api.read_text, "tokenize"),
    Route("/detokenize", None, tokens_api.read_tokens, "detokenize"),
)
ROUTES: dict[bytes, Route] = {route.path.encode(): route for route in _TABLE}


def dialect_of(path: bytes) -> Dialect:
    """What a client that asks for this path reads its errors in."""
    if path.startswith(b"/v1/messages"):
        return messages_api.MESSAGES
    return OPENAI


def serves(route: Route, spec: ModelSpec) -> bool:
    """Whether a model is known to serve a route."""
    return spec.engine in route.kinds and (route.task is None or route.task in spec.tasks)


def allowed(tenant: Tenant | None, spec: ModelSpec, asked: str) -> bool:
    """A tenant's list names models, aliases or adapters; an empty list is everything."""
    return tenant is None or not tenant.models or bool({spec.id, asked} & set(tenant.models))


def who_serves(route: Route, names: Iterable[tuple[str, ModelSpec]]) -> str:
    """A sentence's end: the first of these names that serve the route."""
    found = [name for name, spec in names if serves(route, spec)]
    if not found:
        return f"no model of this catalog is known to serve {route.path}"
    more = ", …" if len(found) > _NAMES_MAX else ""
    return f"{route.path} is served by: {', '.join(found[:_NAMES_MAX])}{more}"
