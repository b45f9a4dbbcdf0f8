"""Anthropic's Messages at the gateway's doors. Pure.

In: bodies of `/v1/messages` and its token count as bytes; its events. Out: the few fields that the
gateway needs, errors in Anthropic's words, usage. Never: translates; engines do.
"""

import msgspec

from gateway.dialects import Dialect
from gateway.events import EVENT_BYTES_MAX, EventRelay
from gateway.openai_api import (
    AnyHead,
    BadBodyError,
    Count,
    Head,
    Messages,
    Refusal,
    Tokens,
    Usage,
    check_message_count,
    decode_body,
)
from gateway.typed_events import Grammar, TypedEventRelay

HEADERS = (b"anthropic-version", b"anthropic-beta")
"""Of a request, for its engine."""


class _CountHead(AnyHead, kw_only=True):
    messages: Messages


class _Head(_CountHead, kw_only=True):
    max_tokens: Count | None = None


_HEAD = msgspec.json.Decoder(_Head)
_COUNT_HEAD = msgspec.json.Decoder(_CountHead)


def read_message(body: bytes) -> Head:
    """The head of a request to `/v1/messages`. Raises `BadBodyError`."""
    check_message_count(body)
    head: _Head = decode_body(_HEAD, body)
    if head.max_tokens is None:
        raise BadBodyError("`max_tokens` is missing: say how long the answer may be")
    return Head(head.model, bool(head.stream))


def read_token_count(body: bytes) -> Head:
    """The head of a request to `/v1/messages/count_tokens`. Raises `BadBodyError`."""
    check_message_count(body)
    return Head(decode_body(_COUNT_HEAD, body).model, stream=False)


class _Usage(msgspec.Struct):
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    message: _Message | None = None
    usage: _Usage | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_EVENT = msgspec.json.Decoder(_Event)


def _usage_of(event: bytes, before: Usage) -> Usage:
    """`message_start` counts what came in, `message_delta` what went out, and perhaps both."""
    try:
        found = _EVENT.decode(event)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return before
    usage = found.usage or (found.message.usage if found.message is not None else None)
    return before if usage is None else _counted(usage, before)


def _counted(usage: _Usage, before: Usage) -> Usage:
    """What was read from or written to a cache was prompt too, and is not in `input_tokens`."""
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    came = before.prompt_tokens if usage.input_tokens is None else usage.input_tokens + cached
    went = before.completion_tokens if usage.output_tokens is None else usage.output_tokens
    return Usage(came, went)


GRAMMAR = Grammar(
    deltas=frozenset({b"content_block_delta"}),
    ends=frozenset({b"message_stop"}),
    failures=frozenset({b"error"}),
    counts=frozenset({b"message_start", b"message_delta"}),
    usage_of=_usage_of,
    event_bytes_max=EVENT_BYTES_MAX,
)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    431: "request_too_large",
}


class AnthropicMessages(Dialect):
    """Anthropic's error documents and events."""

    def error_body(
        self,
        kind: Refusal,
        message: str,
        param: str | None = None,  # noqa: ARG002  Anthropic's document has none
        request_id: bytes = b"",
    ) -> bytes:
        """The field `code` is no part of Anthropic's document: it is the gateway's own word."""
        status, usual = kind.value.status, kind.value.type
        what = {"type": _TYPES.get(status, usual), "message": message, "code": kind.value.code}
        told = {"type": "error", "error": what, "request_id": request_id.decode("latin-1") or None}
        return msgspec.json.encode(told)

    def error_event(
        self,
        kind: Refusal,
        message: str,
        request_id: bytes = b"",
        sequence: int = 0,  # noqa: ARG002  these events have no numbers
    ) -> bytes:
        told = self.error_body(kind, message, None, request_id)
        return b"event: error\ndata: " + told + b"\n\n"

    def events(self, *, keep_usage: bool) -> EventRelay:  # noqa: ARG002  usage is always told
        return TypedEventRelay(GRAMMAR)

    def usage_in(self, answer: bytes) -> Usage | None:
        try:
            usage = _MESSAGE.decode(answer).usage
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            return None
        return None if usage is None else _counted(usage, Usage())


MESSAGES = AnthropicMessages()
