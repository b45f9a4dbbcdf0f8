"""OpenAI request bodies as vLLM reads them: parse once, refuse with vLLM's words.

In: a body as bytes and what the replica serves. Out: a `Job` (tokens, lengths, flags) or a
`Refused` with status and OpenAI error body. Never: awaits, logs, reads a clock. Draws answer
lengths, from a stream seeded by the request alone: the same request has the same answer.
"""

import random
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple
from zlib import crc32

import msgspec

from placement.engines.emulated_batch import BLOCK_TOKENS
from placement.engines.emulated_text import arguments_text

CHARS_PER_TOKEN = 4
_MESSAGE_OVERHEAD_TOKENS = 4
_REPLY_OVERHEAD_TOKENS = 3
_LENGTH_MEDIAN_LN = 5.0  # about 150 tokens
_LENGTH_SIGMA = 0.7
_DIMENSIONS = (8, 1024)
_ERRORS = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


class Refused(NamedTuple):
    status: int
    body: bytes


class Job(NamedTuple):
    """A request the engine can run."""

    kind: Literal["chat", "completions", "embeddings"]
    model: str
    key: int
    prompt_tokens: int
    blocks: tuple[int, ...]
    output_tokens: int
    finish_reason: str
    stream: bool = False
    include_usage: bool = False
    tool: str = ""
    tool_arguments: str = ""
    inputs: tuple[tuple[int, int], ...] = ()
    """Embeddings only: key and tokens of each input."""
    dimensions: int = 0
    base64: bool = False


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    function: _Function
    type: str = "function"


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Sampling(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int | None = 1
    seed: int | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None


class _Chat(_Sampling, kw_only=True):
    messages: list[_Message]
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None


class _Completions(_Sampling, kw_only=True):
    prompt: str | list[str | int | list[int]]


class _Embeddings(msgspec.Struct, kw_only=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = "float"
    dimensions: int | None = None


class Limits(NamedTuple):
    """What the replica serves."""

    names: tuple[str, ...]
    longest_tokens: int
    dimensions: int


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    kind = _ERRORS.get(status, "InternalServerError")
    error = {"message": message, "type": kind, "param": param, "code": status}
    return msgspec.json.encode({"error": error})


def refuse(status: int, message: str, param: str | None = None) -> Refused:
    return Refused(status, error_body(status, message, param))


_CHAT = msgspec.json.Decoder(_Chat)
_COMPLETIONS = msgspec.json.Decoder(_Completions)
_EMBEDDINGS = msgspec.json.Decoder(_Embeddings)


def parse(path: str, body: bytes, limits: Limits) -> Job | Refused:
    """Read the body of one of the three inference routes."""
    try:
        if path == "/v1/chat/completions":
            return _parse_chat(_CHAT.decode(body), limits)
        if path == "/v1/completions":
            return _parse_completions(_COMPLETIONS.decode(body), limits)
        return _parse_embeddings(_EMBEDDINGS.decode(body), limits)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return refuse(400, f"the request body is not valid: {error}")


def text_tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def _blocks(text: str, salt: str) -> tuple[int, ...]:
    """Chained checksums of whole 16-token blocks: equal prefixes have equal blocks."""
    width = BLOCK_TOKENS * CHARS_PER_TOKEN
    chain, found = crc32(salt.encode()), []
    raw = text.encode("utf-8", "replace")
    for start in range(0, len(raw) - width + 1, width):
        chain = crc32(raw[start : start + width], chain)
        found.append(chain)
    return tuple(found)


def _message_text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = message.content or []
    return "".join(str(part.get("text", "")) for part in parts)


def _template_tokens(messages: int) -> int:
    """What a chat has beside its texts."""
    return _MESSAGE_OVERHEAD_TOKENS * messages + _REPLY_OVERHEAD_TOKENS


def chat_tokens(messages: list[dict[str, Any]]) -> tuple[int, list[str]] | Refused:
    """Of a chat, the tokens that are no text, and the texts."""
    try:
        read = msgspec.convert(messages, list[_Message])
    except msgspec.ValidationError as error:
        return refuse(400, f"the request body is not valid: {error}")
    return _template_tokens(len(read)), [_message_text(message) for message in read]


def _parse_chat(body: _Chat, limits: Limits) -> Job | Refused:
    if not body.messages:
        return refuse(400, "messages must hold at least one message", "messages")
    texts = [_message_text(m) for m in body.messages]
    tokens = _template_tokens(len(texts)) + sum(map(text_tokens, texts))
    roles = (f"\n{m.role}:{t}" for m, t in zip(body.messages, texts, strict=True))
    tool, arguments = "", ""
    if body.tools and body.tool_choice not in (None, "auto", "none"):
        chosen = _chosen_tool(body.tools, body.tool_choice)
        if chosen is None:
            return refuse(400, f"tool_choice {body.tool_choice!r} names no tool of tools")
        tool, arguments = chosen.name, arguments_text(chosen.parameters or {})
    return _job(body, limits, "chat", "".join(roles), tokens, tool=tool, arguments=arguments)


def _chosen_tool(tools: list[_Tool], choice: str | dict[str, Any] | None) -> _Function | None:
    if choice == "required":
        return tools[0].function
    if not isinstance(choice, dict) or not isinstance(choice.get("function"), dict):
        return None
    name = choice["function"].get("name")
    return next((t.function for t in tools if t.function.name == name), None)


def _parse_completions(body: _Completions, limits: Limits) -> Job | Refused:
    inputs = list(_inputs(body.prompt))
    if len(inputs) != 1:
        return refuse(400, f"one prompt a request is served here, got {len(inputs)}", "prompt")
    text, tokens = inputs[0]
    return _job(body, limits, "completions", text, tokens)


def _inputs(given: str | list[str | int | list[int]]) -> Iterable[tuple[str, int]]:
    """Each input as text and its tokens; token ids stand for themselves."""
    if isinstance(given, str):
        yield given, max(text_tokens(given), 1)
    elif given and all(isinstance(item, int) for item in given):
        yield " ".join(map(str, given)), len(given)
    else:
        for item in given:
            if isinstance(item, str):
                yield item, max(text_tokens(item), 1)
            else:
                ids = [item] if isinstance(item, int) else item
                yield " ".join(map(str, ids)), max(len(ids), 1)


def unknown_model(model: str | None, limits: Limits) -> Refused | None:
    if model is None or model in limits.names:
        return None
    return refuse(404, f"The model `{model}` does not exist.", "model")


def _job(
    body: _Sampling,
    limits: Limits,
    kind: Literal["chat", "completions"],
    text: str,
    prompt_tokens: int,
    tool: str = "",
    arguments: str = "",
) -> Job | Refused:
    unknown = unknown_model(body.model, limits)
    if unknown is not None:
        return unknown
    problem = _problem(body, prompt_tokens, limits.longest_tokens)
    if problem is not None:
        return problem
    model = body.model or limits.names[0]
    key = crc32(text.encode("utf-8", "replace"), body.seed or 0) & 0xFFFFFFFF
    room = limits.longest_tokens - prompt_tokens
    cap = min(_asked(body) or room, room)
    natural = max(text_tokens(arguments), 1) if tool else _natural_length(key)
    natural = max(natural, body.min_tokens)
    ends = "tool_calls" if tool else "stop"
    cut = natural > cap or (body.ignore_eos and not tool)
    return Job(
        kind=kind,
        model=model,
        key=key,
        prompt_tokens=prompt_tokens,
        blocks=_blocks(text, model),
        output_tokens=cap if cut else natural,
        finish_reason="length" if cut else ends,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        tool=tool,
        tool_arguments=arguments,
    )


def _asked(body: _Sampling) -> int | None:
    return body.max_completion_tokens or body.max_tokens


def _problem(body: _Sampling, prompt_tokens: int, longest: int) -> Refused | None:
    asked = body.max_completion_tokens
    asked = body.max_tokens if asked is None else asked
    if asked is not None and asked < 1:
        return refuse(400, f"max_tokens must be at least 1, got {asked}.", "max_tokens")
    if body.n not in (None, 1):
        return refuse(400, f"n must be 1 on an emulated engine, got {body.n}.", "n")
    if body.temperature is not None and body.temperature < 0:
        return refuse(400, "temperature must be non-negative.", "temperature")
    if body.top_p is not None and not 0 < body.top_p <= 1:
        return refuse(400, f"top_p must be in (0, 1], got {body.top_p}.", "top_p")
    if asked is not None and body.min_tokens > asked:
        return refuse(400, "min_tokens must be less than or equal to max_tokens.", "min_tokens")
    if body.stream_options is not None and not body.stream:
        return refuse(400, "Stream options can only be defined when `stream=True`.")
    if prompt_tokens + (asked or 1) > longest:
        return refuse(
            400,
            f"This model's maximum context length is {longest} tokens. However, you requested "
            f"{prompt_tokens + (asked or 1)} tokens ({prompt_tokens} in the prompt, {asked or 1} "
            "in the completion). Please reduce the length of the prompt or completion.",
        )
    return None


def _natural_length(key: int) -> int:
    """How long the answer is if nothing cuts it: lognormal, seeded by the request."""
    drawn = random.Random(key).lognormvariate(_LENGTH_MEDIAN_LN, _LENGTH_SIGMA)
    return max(int(drawn), 8)


def _parse_embeddings(body: _Embeddings, limits: Limits) -> Job | Refused:
    unknown = unknown_model(body.model, limits)
    if unknown is not None:
        return unknown
    low, high = _DIMENSIONS
    dimensions = limits.dimensions if body.dimensions is None else body.dimensions
    if not low <= dimensions <= high:
        return refuse(400, f"dimensions must be from {low} to {high}.", "dimensions")
    if body.encoding_format not in (None, "float", "base64"):
        return refuse(400, "encoding_format must be float or base64.", "encoding_format")
    inputs = list(_inputs(body.input))
    if not inputs:
        return refuse(400, "input must hold at least one text", "input")
    longest = max(tokens for _, tokens in inputs)
    if longest >= limits.longest_tokens:
        return refuse(
            400,
            f"This model's maximum context length is {limits.longest_tokens} tokens. However, you "
            f"requested {longest} tokens in the input for embedding generation.",
        )
    keyed = tuple((crc32(t.encode("utf-8", "replace")), n) for t, n in inputs)
    return Job(
        kind="embeddings",
        model=body.model or limits.names[0],
        key=keyed[0][0],
        prompt_tokens=sum(n for _, n in keyed),
        blocks=(),
        output_tokens=1,
        finish_reason="stop",
        inputs=keyed,
        dimensions=dimensions,
        base64=body.encoding_format == "base64",
    )
