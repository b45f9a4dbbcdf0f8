"""What an emulated engine says: visibly emulated words, and bodies in vLLM's shape.

In: the request's key, the model's name, a range of tokens. Out: text and JSON bytes. Never:
awaits, reads a clock. Draws embedding vectors, from streams seeded by the input alone.
"""

import math
import random
from array import array
from base64 import b64encode
from typing import Any

import msgspec

# fmt: off
_WORDS = (
    "tide", "water", "rises", "slowly", "over", "the", "warm", "sand", "and",
    "small", "boats", "turn", "toward", "open", "sea", "while", "gulls", "cross",
    "a", "pale", "sky", "where", "clouds", "drift", "past", "quiet", "hills",
    "before", "evening", "light", "falls", "on", "stone", "walls", "near", "old",
    "harbour", "lamps", "that", "sway",
)
# fmt: on
_MIX = 2654435761  # Knuth's multiplicative constant
_GARBAGE = "!"
_CHARS_PER_TOKEN = 4


def encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def text(key: int, model: str, start: int, stop: int, garbage: bool = False) -> str:
    """Tokens `start` to `stop` of an answer; pieces join to the whole."""
    if garbage:
        return _GARBAGE * (stop - start)
    head = ("This", " is", " emulated", " text", " from", f" {model}:")
    rest = (
        " " + _WORDS[((key ^ (i * _MIX)) * _MIX >> 16) % len(_WORDS)]
        for i in range(max(start, len(head)), stop)
    )
    return "".join((*head[start:stop], *rest))


def arguments_text(schema: dict[str, Any]) -> str:
    """Arguments that fit a JSON schema, as a tool call carries them."""
    return encode(_sample(schema, 0)).decode()


def arguments_piece(arguments: str, start: int, stop: int) -> str:
    return arguments[start * _CHARS_PER_TOKEN : stop * _CHARS_PER_TOKEN]


def _sample(schema: dict[str, Any], depth: int) -> Any:
    """One value of the schema: required properties only, the first of an enum."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0] if kind else "object"
    plain: dict[str, Any] = {
        "string": "emulated",
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "null": None,
        "array": [],
    }
    if kind in plain or depth > 8:
        return plain.get(str(kind))
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    wanted = schema.get("required") or list(properties)
    return {
        str(name): _sample(properties[name], depth + 1)
        for name in wanted
        if isinstance(properties.get(name), dict)
    }


def embedding(key: int, dimensions: int) -> list[float]:
    """A vector of length one, the same for the same input."""
    draw = random.Random(key).gauss
    raw = [draw(0.0, 1.0) for _ in range(dimensions)]
    length = math.sqrt(sum(x * x for x in raw))
    return [x / length for x in raw]


def embeddings_body(
    request_id: str, model: str, created_s: int, inputs: list[tuple[int, int]], dims: int, b64: bool
) -> bytes:
    data = []
    for index, (key, _) in enumerate(inputs):
        vector = embedding(key, dims)
        packed = b64encode(array("f", vector).tobytes()).decode() if b64 else vector
        data.append({"index": index, "object": "embedding", "embedding": packed})
    tokens = sum(n for _, n in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return encode(
        {
            "id": request_id,
            "object": "list",
            "created": created_s,
            "model": model,
            "data": data,
            "usage": usage,
        }
    )


class Voice:
    """Bytes of one answer, streamed or whole."""

    __slots__ = ("_frame", "arguments", "chat", "created_s", "key", "model", "request_id", "tool")

    def __init__(
        self,
        *,
        chat: bool,
        request_id: str,
        model: str,
        created_s: int,
        key: int,
        tool: str = "",
        arguments: str = "",
    ) -> None:
        self.chat = chat
        self.request_id = request_id
        self.model = model
        self.created_s = created_s
        self.key = key
        self.tool = tool
        self.arguments = arguments
        kind = "chat.completion.chunk" if chat else "text_completion"
        head = {"id": request_id, "object": kind, "created": created_s, "model": model}
        self._frame = b"data: " + encode(head)[:-1] + b',"choices":['

    def opening(self) -> bytes:
        """The role chunk of a chat; nothing for completions."""
        if not self.chat:
            return b""
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        first = self._event(encode(delta), None)
        if not self.tool:
            return first
        return first + self._event(encode({"tool_calls": [self._call("")]}), None)

    def piece(self, start: int, stop: int, finish: str | None, garbage: bool = False) -> bytes:
        """Tokens `start` to `stop` as one event, the last with its reason."""
        if self.tool:
            part = {"arguments": arguments_piece(self.arguments, start, stop)}
            return self._event(encode({"tool_calls": [{"index": 0, "function": part}]}), finish)
        said = encode(text(self.key, self.model, start, stop, garbage))
        if self.chat:
            return self._event(b'{"content":' + said + b"}", finish)
        reason = encode(finish)
        body = b'{"index":0,"text":' + said + b',"logprobs":null,"finish_reason":' + reason
        return self._frame + body + b',"stop_reason":null}]}\n\n'

    def closing(self, prompt_tokens: int, output_tokens: int, include_usage: bool) -> bytes:
        if not include_usage:
            return b"data: [DONE]\n\n"
        usage = encode(_usage(prompt_tokens, output_tokens))
        return self._frame + b'],"usage":' + usage + b"}\n\ndata: [DONE]\n\n"

    def whole(
        self, prompt_tokens: int, output_tokens: int, finish: str, garbage: bool = False
    ) -> bytes:
        """The body of a request that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
        choice["stop_reason"] = None
        if self.tool:
            cut = arguments_piece(self.arguments, 0, output_tokens)
            call = self._call(cut)
            del call["index"]
            choice["message"] = _message(None) | {"tool_calls": [call]}
        else:
            said = text(self.key, self.model, 0, output_tokens, garbage)
            if self.chat:
                choice["message"] = _message(said)
            else:
                choice["text"] = said
        return encode(
            {
                "id": self.request_id,
                "object": "chat.completion" if self.chat else "text_completion",
                "created": self.created_s,
                "model": self.model,
                "choices": [choice],
                "usage": _usage(prompt_tokens, output_tokens),
            }
        )

    def _event(self, delta: bytes, finish: str | None) -> bytes:
        reason = encode(finish)
        body = b'{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + reason
        return self._frame + body + b"}]}\n\n"

    def _call(self, arguments: str) -> dict[str, Any]:
        function = {"name": self.tool, "arguments": arguments}
        call_id = f"call_{self.key:08x}"
        return {"index": 0, "id": call_id, "type": "function", "function": function}


def _message(content: str | None) -> dict[str, Any]:
    """With the fields that OpenAI's specification asks for even when there is nothing to say."""
    return {"role": "assistant", "content": content, "refusal": None, "annotations": []}


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }
