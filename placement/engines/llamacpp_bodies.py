"""Bodies of the llama.cpp engine: made fit to ask, and put together from pieces.

In: an OpenAI body as a client sent it; chunks as llama.cpp streams them. Out: the body to run (with
a system message), and one whole answer. Never: awaits, loads a model.

Everything is run as a stream, because a stream can be stopped when its client leaves.
"""

from typing import Any

SYSTEM_MESSAGE = {"role": "system", "content": "You are a helpful assistant."}
"""The small model talks nonsense without one."""

DEFAULT_TEMPERATURE = 0.2
"""Where the client names none: at llama.cpp's own 0.8 so small a model wanders off."""


class BadBodyError(ValueError):
    """Said to the client with 400."""


def prepare(body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """What to run: always streamed with usage; a chat never without a system message."""
    run = {key: value for key, value in body.items() if value is not None}
    run.setdefault("temperature", DEFAULT_TEMPERATURE)
    if run.get("n") not in (None, 1):
        raise BadBodyError(f"n must be 1 on this engine, got {run['n']!r}")
    limit = run.pop("max_completion_tokens", None)
    if limit is not None:
        run["max_tokens"] = limit
    limit = run.get("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadBodyError(f"max_tokens must be a whole number of at least 1, got {limit!r}")
    if chat:
        run["messages"] = with_system(run.get("messages"))
    elif not isinstance(run.get("prompt"), str | list) or not run["prompt"]:
        raise BadBodyError("prompt must be a text that is not empty")
    run["stream"] = True
    run["stream_options"] = {"include_usage": True}
    return run


def with_system(messages: object) -> list[Any]:
    """The messages of a chat, a system message among them. Raises `BadBodyError`."""
    if not isinstance(messages, list) or not messages:
        raise BadBodyError("messages must be a list with at least one message")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadBodyError("each of messages must be an object with a role")
        if (kind := _part_not_read(message.get("content"))) is not None:
            raise BadBodyError(f"this model reads text only, got a content part of type {kind!r}")
    if any(message["role"] == "system" for message in messages):
        return messages
    return [SYSTEM_MESSAGE, *messages]


def _part_not_read(content: object) -> object:
    """The type of the first content part that is not text. llama.cpp would answer with its own 500,
    which would count against the engine and not against the request."""
    parts = content if isinstance(content, list) else []
    kinds = (part.get("type") for part in parts if isinstance(part, dict))
    return next((kind for kind in kinds if kind != "text"), None)


def tidy(chunk: dict[str, Any], model: str, request_id: str) -> dict[str, Any]:
    """One chunk under the model's own name, without llama.cpp's additions."""
    kept = {key: value for key, value in chunk.items() if key not in ("timings", "__verbose")}
    return kept | {"model": model, "id": request_id}


def wants_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


class Whole:
    """An answer that is not streamed, put together from its chunks."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[Any] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def add(self, chunk: dict[str, Any]) -> None:
        self._head = self._head or {k: chunk[k] for k in ("id", "created", "model") if k in chunk}
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices", ()):
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta", {}) if self._chat else choice
            self._texts.append(delta.get("content" if self._chat else "text") or "")
            self._reasoning.append(delta.get("reasoning_content") or "")
            self._logprobs += (choice.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls") or ():
                self._add_call(call)

    def _add_call(self, piece: dict[str, Any]) -> None:
        index = int(piece.get("index", 0))
        call = self._calls.setdefault(
            index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function", {})
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def body(self) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": self._finish or "stop",
            "logprobs": {"content": self._logprobs} if self._logprobs else None,
        }
        said = "".join(self._texts)
        if self._chat:
            message: dict[str, Any] = {"role": "assistant", "content": said}
            message |= {"refusal": None, "annotations": []}
            if reasoning := "".join(self._reasoning):
                message["reasoning_content"] = reasoning
            if self._calls:
                message["tool_calls"] = [self._calls[i] for i in sorted(self._calls)]
                message["content"] = said or None
            choice["message"] = message
        else:
            choice["text"] = said
        kind = "chat.completion" if self._chat else "text_completion"
        return self._head | {"object": kind, "choices": [choice], "usage": self._usage}
