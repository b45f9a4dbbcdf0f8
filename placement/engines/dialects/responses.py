"""OpenAI's Responses on an engine that knows chat. Pure.

In: bodies of `/v1/responses`; the chat's answer. Out: the chat to run; a response or its events. Of
the input, text, calls of functions and their outputs are taken; reasoning of earlier turns is left
out, as chat templates do; whatever else is refused by its name. Nothing is stored.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from placement.engines.dialects.chat import Item, Translation
from placement.engines.dialects.reading import UnfitError, convert, read

_TEXTS = ("input_text", "output_text", "text", "refusal")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_ERRORS = {400: "invalid_request_error", 404: "not_found_error"}
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty",
    "frequency_penalty", "repetition_penalty", "ignore_eos", "parallel_tool_calls",
)  # fmt: skip


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]


class _FunctionCall(msgspec.Struct):
    call_id: str
    name: str
    arguments: str = ""


class _FunctionOutput(msgspec.Struct):
    call_id: str
    output: str | list[_Part]


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Format(msgspec.Struct):
    type: str
    name: str = "output"
    schema: dict[str, Any] | None = None


class _TextConfig(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: _TextConfig | None = None
    # Passed on.
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    parallel_tool_calls: bool | None = None
    # Hints, which change nothing here.
    metadata: dict[str, str] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    store: bool | None = None
    stream_options: dict[str, Any] | None = None
    service_tier: str | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ResponsesTranslation(Translation):
    """One request to `/v1/responses`."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._asked = asked = read(body, _Request)
        self._sequence = 0
        self.chat = {"model": asked.model, "messages": list(_messages(asked))}
        self.chat |= {name: getattr(asked, name) for name in _SAMPLING}
        self.chat["max_tokens"] = asked.max_output_tokens
        choice = _choice(asked.tool_choice)
        if asked.tools:
            self.chat["tools"] = [_tool(tool, i) for i, tool in enumerate(asked.tools)]
            self.chat["tool_choice"] = choice
        if asked.text is not None and asked.text.format is not None:
            self.chat["response_format"] = _format(asked.text.format)
        if asked.stream:
            self.chat |= {"stream": True, "stream_options": {"include_usage": True}}

    @staticmethod
    def error_body(status: int, message: str, param: str | None) -> bytes:
        kind = _ERRORS.get(status, "server_error")
        error = {"message": message, "type": kind, "param": param, "code": status}
        return msgspec.json.encode({"error": error})

    def document(self) -> dict[str, Any]:
        cut = self.finish not in ("stop", "tool_calls")
        shown = self._response("incomplete" if cut else "completed")
        shown["output"] = [self._whole_item(item) for item in self.items]
        shown["incomplete_details"] = (
            {"reason": "max_output_tokens"} if self.finish == "length" else None
        )
        shown["usage"] = {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.output_tokens,
        }
        return shown

    def begin(self) -> None:
        self._tell("response.created", response=self._response("in_progress"))
        self._tell("response.in_progress", response=self._response("in_progress"))

    def begin_item(self, item: Item) -> None:
        shown = self._item_shown(item, "in_progress", [])
        self._tell("response.output_item.added", output_index=item.index, item=shown)
        if item.kind != "call":
            part = _part(item.kind, "")
            self._tell("response.content_part.added", **self._place(item), part=part)

    def grow_item(self, item: Item, piece: str) -> None:
        if item.kind == "call":
            self._tell("response.function_call_arguments.delta", **self._at(item), delta=piece)
        elif item.kind == "reasoning":
            self._tell("response.reasoning_text.delta", **self._place(item), delta=piece)
        else:
            place = self._place(item)
            self._tell("response.output_text.delta", **place, delta=piece, logprobs=[])

    def end_item(self, item: Item) -> None:
        said, place = item.said, self._place(item)
        if item.kind == "call":
            told = {"name": item.name, "arguments": said}
            self._tell("response.function_call_arguments.done", **self._at(item), **told)
        elif item.kind == "reasoning":
            self._tell("response.reasoning_text.done", **place, text=said)
        else:
            self._tell("response.output_text.done", **place, text=said, logprobs=[])
        if item.kind != "call":
            part = _part(item.kind, said)
            self._tell("response.content_part.done", **place, part=part)
        shown = self._whole_item(item)
        self._tell("response.output_item.done", output_index=item.index, item=shown)

    def end(self) -> None:
        shown = self.document()
        self._tell(f"response.{shown['status']}", response=shown)

    def fail(self, message: str, status: int) -> None:  # noqa: ARG002  code is one of OpenAI's
        shown = self._response("failed")
        shown["output"] = [self._whole_item(item) for item in self.items]
        shown["error"] = {"code": "server_error", "message": message}
        self._tell("response.failed", response=shown)

    def _tell(self, kind: str, **fields: Any) -> None:
        self.emit(kind, sequence_number=self._sequence, **fields)
        self._sequence += 1

    def _item_id(self, item: Item) -> str:
        prefix = {"call": "fc", "reasoning": "rs", "text": "msg"}[item.kind]
        return f"{prefix}_{self.answer_id}_{item.index}"

    def _at(self, item: Item) -> dict[str, Any]:
        return {"item_id": self._item_id(item), "output_index": item.index}

    def _place(self, item: Item) -> dict[str, Any]:
        return self._at(item) | {"content_index": 0}

    def _whole_item(self, item: Item) -> dict[str, Any]:
        """The last item of an answer that its length cut short is not whole."""
        cut = self.finish == "length" and item is self.items[-1]
        status = "incomplete" if cut else "completed"
        return self._item_shown(item, status, [_part(item.kind, item.said)])

    def _item_shown(self, item: Item, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": self._item_id(item), "status": status}
        if item.kind == "call":
            told = {"call_id": item.call_id, "name": item.name, "arguments": item.said}
            return shown | {"type": "function_call"} | told
        if item.kind == "reasoning":
            return shown | {"type": "reasoning", "summary": [], "content": parts}
        return shown | {"type": "message", "role": "assistant", "content": parts}

    def _response(self, status: str) -> dict[str, Any]:
        asked = self._asked
        tools = [msgspec.to_builtins(tool) | {"strict": False} for tool in asked.tools or ()]
        parallel = asked.parallel_tool_calls
        return {
            "id": f"resp_{self.answer_id}",
            "object": "response",
            "created_at": self.created_s,
            "status": status,
            "background": False,
            "completed_at": self.created_s if status == "completed" else None,
            "error": None,
            "frequency_penalty": asked.frequency_penalty or 0.0,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "metadata": asked.metadata or {},
            "model": self.model,
            "output": [],
            "parallel_tool_calls": True if parallel is None else parallel,
            "presence_penalty": asked.presence_penalty or 0.0,
            "previous_response_id": None,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}} if asked.text is None else asked.text,
            "tool_choice": asked.tool_choice or "auto",
            "tools": tools,
            "top_logprobs": 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
        }


def _part(kind: str, said: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": said}
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def _tool(tool: _Tool, number: int) -> dict[str, Any]:
    if tool.type != "function":
        told = (
            f"`tools[{number}].type`: {tool.type!r} is not supported by this engine, functions are"
        )
        raise UnfitError(told, f"tools[{number}].type")
    function = {"name": tool.name, "description": tool.description or ""}
    return {"type": "function", "function": function | {"parameters": tool.parameters or {}}}


def _choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any]:
    if isinstance(choice, dict):
        if choice.get("type") != "function" or not choice.get("name"):
            told = "`tool_choice`: as an object it must name a function"
            raise UnfitError(told, "tool_choice")
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice or "auto"


def _format(wanted: _Format) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    return {
        "type": "json_schema",
        "json_schema": {"name": wanted.name, "schema": wanted.schema or {}},
    }


def _messages(asked: _Request) -> Iterator[dict[str, Any]]:
    if asked.instructions:
        yield {"role": "system", "content": asked.instructions}
    if isinstance(asked.input, str):
        yield {"role": "user", "content": asked.input}
        return
    calls: list[dict[str, Any]] = []
    for number, item in enumerate(asked.input):
        where = f"input[{number}]"
        kind = item.get("type") or "message"
        if kind == "function_call":
            calls.append(_call(convert(item, _FunctionCall, where)))
            continue
        if calls:
            yield {"role": "assistant", "content": None, "tool_calls": calls}
            calls = []
        if kind != "reasoning":
            yield _turn(kind, item, where)
    if calls:
        yield {"role": "assistant", "content": None, "tool_calls": calls}


def _turn(kind: str, item: dict[str, Any], where: str) -> dict[str, Any]:
    if kind == "message":
        message = convert(item, _Message, where)
        role = _ROLES.get(message.role)
        if role is None:
            raise UnfitError(f"`{where}.role`: {message.role!r} is none that is known here", where)
        return {"role": role, "content": _text(message.content, f"{where}.content")}
    if kind == "function_call_output":
        result = convert(item, _FunctionOutput, where)
        text = _text(result.output, f"{where}.output")
        return {"role": "tool", "tool_call_id": result.call_id, "content": text}
    raise UnfitError(f"`{where}.type`: {kind!r} is not supported by this engine", f"{where}.type")


def _text(content: str | list[_Part], where: str) -> str:
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if part.type not in _TEXTS:
            field = f"{where}[{number}].type"
            raise UnfitError(f"`{field}`: {part.type!r} is not supported by this engine", field)
    return "\n".join(part.text or part.refusal or "" for part in content)


def _call(call: _FunctionCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}
