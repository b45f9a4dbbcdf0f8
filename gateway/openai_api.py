"""OpenAI's shapes at the gateway's two doors: what is read of a request, what an error looks like.

In: request bodies and server-sent events as bytes. Out: the few fields the gateway needs, error
bodies, framing. Never: awaits, keeps state, changes a byte that a client sent.
"""

import difflib
import re
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from placement.catalog import Task


class Kind(NamedTuple):
    """One way to be refused: status, OpenAI `type`, `code`, whether trying again can help."""

    status: int
    type: str
    code: str
    retry: bool


class Refusal(Enum):
    """Every error the gateway itself answers, in one table."""

    BAD_REQUEST = Kind(400, "invalid_request_error", "invalid_request", retry=False)
    BAD_HTTP = Kind(400, "invalid_request_error", "malformed_http", retry=False)
    NO_KEY = Kind(401, "invalid_request_error", "invalid_api_key", retry=False)
    FORBIDDEN = Kind(403, "invalid_request_error", "permission_denied", retry=False)
    NO_ROUTE = Kind(404, "invalid_request_error", "not_found", retry=False)
    NO_MODEL = Kind(404, "invalid_request_error", "model_not_found", retry=False)
    WRONG_TASK = Kind(400, "invalid_request_error", "unsupported_task", retry=False)
    WRONG_METHOD = Kind(405, "invalid_request_error", "method_not_allowed", retry=False)
    TOO_SLOW = Kind(408, "invalid_request_error", "request_timeout", retry=True)
    HALF_CLOSED = Kind(400, "invalid_request_error", "client_closed", retry=False)
    TOO_LARGE = Kind(413, "invalid_request_error", "request_too_large", retry=False)
    HEADERS_TOO_LARGE = Kind(431, "invalid_request_error", "headers_too_large", retry=False)
    TENANT_LIMIT = Kind(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
    OVERLOADED = Kind(429, "overloaded_error", "overloaded", retry=True)
    INTERNAL = Kind(500, "api_error", "internal_error", retry=False)
    UNSUPPORTED_ROUTE = Kind(501, "invalid_request_error", "unsupported_route", retry=False)
    ENGINE_FAILED = Kind(502, "api_error", "engine_failed", retry=True)
    LOADING = Kind(503, "overloaded_error", "model_loading", retry=True)
    NO_CAPACITY = Kind(503, "overloaded_error", "no_capacity", retry=True)
    STOPPING = Kind(503, "overloaded_error", "shutting_down", retry=True)
    DEADLINE = Kind(504, "timeout_error", "deadline_exceeded", retry=False)


class Message(msgspec.Struct, gc=False):
    role: str


MESSAGES_MAX = 100_000
CHECKED_BYTES_MAX = 256 * 1024
"""Lists in `prompt` and `input` are looked through up to this size; beyond it only their first item
is looked at, the engine judges the rest. A gateway busy with one body is deaf to all others."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Messages = Annotated[list[Message], msgspec.Meta(min_length=1, max_length=MESSAGES_MAX)]
Field: TypeAlias = msgspec.Raw | msgspec.UnsetType
"""A field whose bytes are kept as they came, or that did not come."""


class AnyHead(msgspec.Struct):
    """What the bodies of all routes share."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    stream: bool | None = None


class _ChatHead(AnyHead, kw_only=True):
    messages: Messages
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stream_options: Field = msgspec.UNSET


class _CompletionAny(AnyHead, kw_only=True):
    prompt: msgspec.Raw
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stream_options: Field = msgspec.UNSET


class _EmbeddingAny(AnyHead, kw_only=True):
    input: msgspec.Raw
    stream_options: Field = msgspec.UNSET


_DECODERS: dict[Task, msgspec.json.Decoder[Any]] = {
    Task.CHAT: msgspec.json.Decoder(_ChatHead),
    Task.COMPLETIONS: msgspec.json.Decoder(_CompletionAny),
    Task.EMBEDDINGS: msgspec.json.Decoder(_EmbeddingAny),
}


_TokenIds = Annotated[list[int], msgspec.Meta(min_length=1)]
_LISTS: dict[bytes, msgspec.json.Decoder[Any]] = {
    b'"': msgspec.json.Decoder(list[str]),
    b"[": msgspec.json.Decoder(list[_TokenIds]),
    **dict.fromkeys((b"%d" % digit for digit in range(10)), msgspec.json.Decoder(list[int])),
}


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the gateway needs to know of a request's body."""

    model: str
    stream: bool
    stream_options: Field = msgspec.UNSET
    needs_state: str = ""
    """A field that asks for something kept from another request, by its name."""


class BadBodyError(Exception):
    """The body is not a request of this route: the text says what and where."""


def parse_head(task: Task, body: bytes) -> Head:
    """Read only what routing needs; skip the rest. Raises `BadBodyError` in the caller's words."""
    if len(body) > CHECKED_BYTES_MAX and task is Task.CHAT:
        check_message_count(body)
    head = decode_body(_DECODERS[task], body)
    if task is not Task.CHAT:
        _check_text_input(task, head)
    return Head(head.model, bool(head.stream), head.stream_options)


def decode_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body in the decoder's shape, or `BadBodyError`."""
    try:
        if not body.isascii():
            str(body, "utf-8")
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise BadBodyError(
            f"the body is not valid UTF-8 (byte {error.start}): send JSON encoded as UTF-8"
        ) from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadBodyError(_in_plain_words(str(error))) from None
    except RecursionError:
        raise BadBodyError("the body is nested too deeply to be a request") from None


def check_message_count(body: bytes) -> None:
    """Before millions of messages become objects: quotes inside a string are always escaped."""
    if len(body) > CHECKED_BYTES_MAX and body.count(b'"role"') > MESSAGES_MAX:
        raise BadBodyError(f"`messages`: at most {MESSAGES_MAX} are taken")


def _check_text_input(task: Task, head: Any) -> None:
    field = "prompt" if task is Task.COMPLETIONS else "input"
    if not is_text_input(memoryview(head.prompt if task is Task.COMPLETIONS else head.input)):
        raise BadBodyError(
            f"`{field}` must be a non-empty string, a list of strings, or lists of token ids"
        )


def is_text_input(given: memoryview) -> bool:
    """Whether a raw value is a text that is not empty, or a list of texts or token ids."""
    start = bytes(given[:64])  # a list's first item may stand behind blanks
    if start[:1] == b'"':
        return len(given) > 2
    if start[:1] != b"[":
        return False
    decoder = _LISTS.get(start[1:].lstrip()[:1])
    if decoder is None:
        return False
    if len(given) <= CHECKED_BYTES_MAX:
        try:
            decoder.decode(given)
        except msgspec.ValidationError:
            return False
    return True


def _in_plain_words(error: str) -> str:
    what, _, where = error.partition(" - at ")
    if what.startswith("JSON is malformed"):
        return f"the body is not valid JSON: {what.removeprefix('JSON is malformed: ')}"
    if "truncated" in what:
        return "the body is not valid JSON: it ends too early"
    if not where:
        return f"the body is not a request of this route: {what}"
    field = where.strip("`").removeprefix("$").removeprefix(".")
    return f"`{field or 'body'}`: {what[0].lower()}{what[1:]}"


def replace_model(body: bytes, name: str) -> bytes:
    """The same body asking for `name`; every other value keeps its bytes."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def error_document(kind: Refusal, message: str, param: str | None = None) -> dict[str, Any]:
    """What OpenAI's clients find under `error`."""
    return {
        "message": message,
        "type": kind.value.type,
        "param": param,
        "code": kind.value.code,
    }


def error_body(kind: Refusal, message: str, param: str | None = None) -> bytes:
    """OpenAI's error document."""
    return msgspec.json.encode({"error": error_document(kind, message, param)})


def unknown_model(name: str, known: Iterable[str]) -> str:
    """What to say of a name nobody serves: the closest ones, or where to see them all."""
    shown = name if len(name) <= 80 else name[:77] + "..."
    close = difflib.get_close_matches(name[:80], list(known), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see GET /v1/models for those served"
    return f"the model `{shown}` does not exist: {hint}"


# --- server-sent events ---------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**15 - 1)]
"""A count of tokens as an engine tells it; what is beyond all measure is not taken."""


_CHUNK = msgspec.json.Decoder(_Chunk)
_USUAL_USAGE = re.compile(
    rb'"usage": ?\{"prompt_tokens": ?(\d{1,15}), ?(?:"total_tokens": ?\d{1,15}, ?)?'
    rb'"completion_tokens": ?(\d{1,15})\b'
)
"""As engines mostly write it; the other two find it in any order."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,15})\b')
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,15})\b')


def has_text(event: bytes) -> bool:
    """Whether an SSE event carries a non-empty delta: the event that ends the wait for TTFT."""
    data = data_of(event)
    if data is None or data == b"[DONE]":
        return False
    try:
        chunk = _CHUNK.decode(data)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return False
    for choice in chunk.choices:
        delta = choice.delta
        if choice.text or (
            delta is not None
            and (
                delta.content
                or delta.reasoning_content
                or delta.reasoning
                or delta.tool_calls
                or delta.refusal
            )
        ):
            return True
    return False


def usage_in(tail: bytes) -> Usage | None:
    """Token usage from a stream's last events or a whole response: counted, never guessed.

    Read by pattern: inside a JSON string the quotes of `"usage":` would be escaped, so what is
    found is the field.
    """
    at = tail.rfind(b'"usage"')
    usual = _USUAL_USAGE.match(tail, at) if at >= 0 else None
    if usual is not None:
        return Usage(int(usual[1]), int(usual[2]))
    while at >= 0 and _USAGE.match(tail, at) is None:  # a token of that name among logprobs
        at = tail.rfind(b'"usage"', 0, at)
    if at < 0:
        return None
    prompt, completion = _PROMPT_TOKENS.search(tail, at), _COMPLETION_TOKENS.search(tail, at)
    if prompt is None and completion is None:
        return None
    return Usage(
        prompt_tokens=int(prompt[1]) if prompt else 0,
        completion_tokens=int(completion[1]) if completion else 0,
    )


def data_of(event: bytes) -> bytes | None:
    """What stands behind `data:` in an event of one data line."""
    at = event.find(b"data:")
    if at < 0 or (at > 0 and event[at - 1 : at] != b"\n"):
        return None
    return event[at + 5 :].strip()
