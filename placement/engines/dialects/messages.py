"""Anthropic's Messages on an engine that knows chat. Pure.

In: bodies of `/v1/messages` and its token count; the chat's answer. Out: the chat to run; a message
or its events. Of a conversation, text, calls of tools and their results are taken; thinking of
earlier turns is left out, as chat templates do; whatever else is refused by its name.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from placement.engines.dialects.chat import Item, Translation
from placement.engines.dialects.reading import UnfitError, read

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str = ""


class _Redacted(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str = ""


class _ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any] = {}


class _ToolResult(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Text | _Thinking | _Redacted | _ToolUse | _ToolResult]


class _Tool(msgspec.Struct):
    name: str
    type: str = "custom"
    description: str = ""
    input_schema: dict[str, Any] = {}


class _ToolChoice(msgspec.Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Kind(msgspec.Struct):
    type: str


class _Format(msgspec.Struct):
    type: str
    schema: dict[str, Any]


class _OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    format: _Format | None = None
    effort: str | None = None


class _Counted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    model: str | None = None
    messages: list[_Message]
    system: str | list[_Text] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Kind | None = None
    output_config: _OutputConfig | None = None


class _Request(_Counted, kw_only=True, forbid_unknown_fields=True):
    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


_NO_TEXT = {"type": "text", "text": "", "citations": None}
_UNKNOWN_USAGE = dict.fromkeys(
    (
        *("cache_creation", "cache_creation_input_tokens", "cache_read_input_tokens"),
        *("inference_geo", "output_tokens_details", "server_tool_use", "service_tier"),
    )
)
"""Fields that strict readers want to see, and that these engines know nothing of."""


class MessagesTranslation(Translation):
    """One request to `/v1/messages`."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        asked = read(body, _Request)
        self.chat = _chat_of(asked) | {
            "max_tokens": asked.max_tokens,
            "stop": asked.stop_sequences,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "top_k": asked.top_k,
        }
        if asked.stream:
            self.chat |= {"stream": True, "stream_options": {"include_usage": True}}

    @staticmethod
    def error_body(status: int, message: str, param: str | None) -> bytes:  # noqa: ARG004
        what = {"type": _ERRORS.get(status, "api_error"), "message": message}
        return msgspec.json.encode({"type": "error", "error": what, "request_id": None})

    def document(self) -> dict[str, Any]:
        content = [self._block(item) for item in self.items]
        return self._message(content or [_NO_TEXT]) | {
            "stop_reason": self._stop_reason(),
            "stop_sequence": self.stop_text,
        }

    def begin(self) -> None:
        self.emit("message_start", message=self._message([]))

    def begin_item(self, item: Item) -> None:
        self.emit("content_block_start", index=item.index, content_block=self._empty(item))

    def grow_item(self, item: Item, piece: str) -> None:
        delta = {
            "text": {"type": "text_delta", "text": piece},
            "reasoning": {"type": "thinking_delta", "thinking": piece},
            "call": {"type": "input_json_delta", "partial_json": piece},
        }[item.kind]
        self.emit("content_block_delta", index=item.index, delta=delta)

    def end_item(self, item: Item) -> None:
        self.emit("content_block_stop", index=item.index)

    def end(self) -> None:
        if not self.items:
            self._item("text")  # clients expect one block at least
            self._close_item()
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": self.stop_text}
        self.emit("message_delta", delta=delta, usage=self._usage())
        self.emit("message_stop")

    def fail(self, message: str, status: int) -> None:
        self.emit("error", error={"type": _ERRORS.get(status, "api_error"), "message": message})

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"msg_{self.answer_id}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": self._usage() | _UNKNOWN_USAGE,
        }

    def _usage(self) -> dict[str, int]:
        return {"input_tokens": self.prompt_tokens, "output_tokens": self.output_tokens}

    def _stop_reason(self) -> str | None:
        """None of an answer that its engine gave up."""
        if self.finish == "stop" and self.stop_text is not None:
            return "stop_sequence"
        if self.finish == "stop" and self.items and self.items[-1].kind == "call":
            return "tool_use"
        words = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
        return words.get(self.finish or "")

    @staticmethod
    def _empty(item: Item) -> dict[str, Any]:
        if item.kind == "call":
            call = {"type": "tool_use", "id": item.call_id, "name": item.name, "input": {}}
            return call | {"caller": {"type": "direct"}}
        if item.kind == "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return _NO_TEXT

    def _block(self, item: Item) -> dict[str, Any]:
        key = {"call": "input", "reasoning": "thinking", "text": "text"}[item.kind]
        said = _arguments(item.said) if item.kind == "call" else item.said
        return self._empty(item) | {key: said}


def count_chat(body: bytes) -> dict[str, Any]:
    """The chat whose tokens `/v1/messages/count_tokens` asks for. Raises `UnfitError`."""
    return _chat_of(read(body, _Counted))


def _arguments(said: str) -> dict[str, Any]:
    """A call that was cut short has none that could be used."""
    try:
        return msgspec.json.decode(said, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _chat_of(asked: _Counted) -> dict[str, Any]:
    thinking = asked.thinking.type if asked.thinking is not None else "disabled"
    if thinking not in ("disabled", "adaptive"):
        told = f"`thinking`: {thinking!r} is not supported by this engine: leave it out"
        raise UnfitError(told, "thinking")
    chat: dict[str, Any] = {"model": asked.model, "messages": list(_messages(asked))}
    if asked.tools:
        chat["tools"] = [_tool(tool, i) for i, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        chat["tool_choice"] = _choice(asked.tool_choice)
        chat["parallel_tool_calls"] = not asked.tool_choice.disable_parallel_tool_use
    wanted = asked.output_config.format if asked.output_config is not None else None
    if wanted is not None:
        schema = {"name": "output", "schema": wanted.schema}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat


def _tool(tool: _Tool, number: int) -> dict[str, Any]:
    if tool.type != "custom":
        told = f"`tools[{number}].type`: {tool.type!r} runs on Anthropic's servers only"
        raise UnfitError(told, f"tools[{number}].type")
    schema = {"type": "object", **tool.input_schema}
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def _choice(choice: _ToolChoice) -> str | dict[str, Any]:
    if choice.type == "tool" and choice.name:
        return {"type": "function", "function": {"name": choice.name}}
    if choice.type not in _CHOICES:
        told = "`tool_choice`: its type must be auto, any, none, or tool with a name"
        raise UnfitError(told, "tool_choice")
    return _CHOICES[choice.type]


def _messages(asked: _Counted) -> Iterator[dict[str, Any]]:
    if asked.system:
        yield {"role": "system", "content": _text(asked.system)}
    for number, message in enumerate(asked.messages):
        if message.role not in ("user", "assistant", "system"):
            told = f"`messages[{number}].role` must be user or assistant, got {message.role!r}"
            raise UnfitError(told, f"messages[{number}].role")
        yield from _turns(message)


def _turns(message: _Message) -> Iterator[dict[str, Any]]:
    """One message of theirs is several of chat's where it brings results of tools."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    texts = [block for block in message.content if isinstance(block, _Text)]
    calls = [_call(block) for block in message.content if isinstance(block, _ToolUse)]
    results = [block for block in message.content if isinstance(block, _ToolResult)]
    for result in results:
        content = _text(result.content or "")
        yield {"role": "tool", "tool_call_id": result.tool_use_id, "content": content}
    if calls:
        yield {"role": message.role, "content": _text(texts) or None, "tool_calls": calls}
    elif texts or not results:
        yield {"role": message.role, "content": _text(texts)}


def _text(content: str | list[_Text]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _call(block: _ToolUse) -> dict[str, Any]:
    function = {"name": block.name, "arguments": msgspec.json.encode(block.input).decode()}
    return {"id": block.id, "type": "function", "function": function}
