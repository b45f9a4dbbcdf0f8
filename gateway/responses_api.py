"""OpenAI's Responses at the gateway's doors. Pure.

In: bodies of `/v1/responses` as bytes; its events. Out: the few fields that the gateway needs,
errors as events of that stream, usage. Never: translates; engines do.
"""

import msgspec

from gateway.dialects import Dialect
from gateway.events import EventRelay
from gateway.openai_api import (
    AnyHead,
    BadBodyError,
    Count,
    Field,
    Head,
    Refusal,
    Tokens,
    Usage,
    decode_body,
    error_document,
)
from gateway.typed_events import Grammar, TypedEventRelay

EVENT_BYTES_MAX = 8 * 1024 * 1024
"""The first and the last events repeat instructions and tools, the last one the whole answer."""


class _Head(AnyHead, kw_only=True):
    input: Field = msgspec.UNSET
    prompt: Field = msgspec.UNSET
    max_output_tokens: Count | None = None
    previous_response_id: str | None = None
    conversation: Field = msgspec.UNSET
    background: bool | None = None


_HEAD = msgspec.json.Decoder(_Head)
_NOTHING = (b"null", b'""', b"{}", b"[]", b"false", b"0")


def read_response(body: bytes) -> Head:
    """The head of a request to `/v1/responses`. Raises `BadBodyError`."""
    head: _Head = decode_body(_HEAD, body)
    if not _is_given(head.prompt) and not _is_input(head.input):
        raise BadBodyError("`input` must be a text that is not empty, or a list of items")
    kept = {
        "previous_response_id": head.previous_response_id,
        "conversation": _is_given(head.conversation),
        "background": head.background,
    }
    needs = next((name for name, value in kept.items() if value), "")
    return Head(head.model, bool(head.stream), needs_state=needs)


def _is_given(field: Field) -> bool:
    """Whether there is something in a field of any shape, which may have millions of parts: it is
    not decoded."""
    return not isinstance(field, msgspec.UnsetType) and bytes(memoryview(field)[:8]) not in _NOTHING


def _is_input(given: Field) -> bool:
    if isinstance(given, msgspec.UnsetType):
        return False
    raw = bytes(memoryview(given)[:64])
    if raw.startswith(b"["):
        return raw[1:].lstrip()[:1] == b"{"
    return raw.startswith(b'"') and raw != b'""'


class _Usage(msgspec.Struct):
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0


class _Response(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    response: _Response | None = None


_RESPONSE = msgspec.json.Decoder(_Response)
_EVENT = msgspec.json.Decoder(_Event)


def _usage_of(event: bytes, before: Usage) -> Usage:
    try:
        response = _EVENT.decode(event).response
    except (msgspec.ValidationError, msgspec.DecodeError):
        return before
    return _counted(response) or before


def _counted(response: _Response | None) -> Usage | None:
    usage = response.usage if response is not None else None
    return None if usage is None else Usage(usage.input_tokens, usage.output_tokens)


_ENDS = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})
GRAMMAR = Grammar(
    deltas=frozenset(
        {
            b"response.output_text.delta",
            b"response.refusal.delta",
            b"response.function_call_arguments.delta",
            b"response.custom_tool_call_input.delta",
            b"response.reasoning_text.delta",
            b"response.reasoning_summary_text.delta",
        }
    ),
    ends=_ENDS,
    failures=frozenset({b"response.failed", b"error"}),
    counts=_ENDS,
    usage_of=_usage_of,
    event_bytes_max=EVENT_BYTES_MAX,
)


class Responses(Dialect):
    """Errors have OpenAI's document; in a stream they are events with a type and a number."""

    def error_event(
        self,
        kind: Refusal,
        message: str,
        request_id: bytes = b"",  # noqa: ARG002  stands in the response's headers alone
        sequence: int = 0,
    ) -> bytes:
        """The field `error` is no part of OpenAI's event: by it the official client raises."""
        told = {
            "type": "error",
            "code": kind.value.code,
            "message": message,
            "param": None,
            "sequence_number": sequence,
            "error": error_document(kind, message),
        }
        return b"event: error\ndata: " + msgspec.json.encode(told) + b"\n\n"

    def events(self, *, keep_usage: bool) -> EventRelay:  # noqa: ARG002  usage is always told
        return TypedEventRelay(GRAMMAR)

    def usage_in(self, answer: bytes) -> Usage | None:
        try:
            return _counted(_RESPONSE.decode(answer))
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            return None


RESPONSES = Responses()
