"""Chat answers, whole or in chunks, taken apart so that another dialect can tell them. Pure.

In: an answer or server-sent chunks of OpenAI's chat, as an engine writes them. Out: through the
methods of a `Translation`, the same as items that begin, grow and end: reasoning, text, calls of
functions. Never: awaits, reads a clock.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

ItemKind: TypeAlias = Literal["reasoning", "text", "call"]
_DONE = b"[DONE]"
_PREFIX = "chatcmpl-"


@dataclass(slots=True)
class Item:
    """One part of an answer. `call_id` and `name` are a call's; `pieces` join to what it says."""

    index: int
    kind: ItemKind
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "".join(self.pieces)


class Translation(ABC):
    """One request in another dialect: the chat to run for it, and its answer told back."""

    def __init__(self) -> None:
        self.chat: dict[str, Any] = {}
        """The body to run. A None was not asked for."""
        self.items: list[Item] = []
        self.finish: str | None = None
        self.stop_text: str | None = None
        """What the answer was stopped by, where an engine tells it."""
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.answer_id = ""
        self.created_s = 0
        self.model = ""
        self._open: Item | None = None
        self._begun = self._ended = False
        self._out: list[bytes] = []

    def body(self) -> bytes:
        """The chat as an engine's route takes it."""
        asked = {name: value for name, value in self.chat.items() if value is not None}
        return msgspec.json.encode(asked)

    # --- what the engine says

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The document of an answer that is not streamed."""
        self._take(answer, "message")
        self._close_item()
        self._out.clear()
        return self.document()

    def events(self, chunks: bytes) -> bytes:
        """Whole events of chat, to events of this dialect; perhaps none."""
        for event in chunks.split(b"\n\n"):
            data = event.removeprefix(b"data:").strip()
            if not data or self._ended:
                continue
            if data == _DONE:
                self._end()
            else:
                self._take(msgspec.json.decode(data), "delta")
        told, self._out = b"".join(self._out), []
        return told

    def _take(self, chunk: dict[str, Any], key: str) -> None:
        error = chunk.get("error")
        if error:
            self._ended = True
            self.fail(str(error.get("message")), int(error.get("code") or 500))
            return
        if not self._begun:
            self._begun = True
            self.answer_id = str(chunk.get("id", "")).removeprefix(_PREFIX)
            self.created_s = int(chunk.get("created", 0))
            self.model = str(chunk.get("model", ""))
            self.begin()
        usage = chunk.get("usage")
        if usage:
            self.prompt_tokens = usage["prompt_tokens"]
            self.output_tokens = usage["completion_tokens"]
        for choice in chunk.get("choices", ()):
            self._take_choice(choice, choice.get(key) or {})

    def _take_choice(self, choice: dict[str, Any], said: dict[str, Any]) -> None:
        if reasoning := said.get("reasoning_content") or said.get("reasoning"):
            self._grow(self._item("reasoning"), reasoning)
        if text := said.get("content"):
            self._grow(self._item("text"), text)
        for call in said.get("tool_calls") or ():
            function = call.get("function") or {}
            item = self._call_item(call.get("id") or "", function.get("name") or "")
            if arguments := function.get("arguments"):
                self._grow(item, arguments)
        self.finish = choice.get("finish_reason") or self.finish
        stop = choice.get("stop_reason")
        self.stop_text = stop if isinstance(stop, str) else self.stop_text

    def _item(self, kind: ItemKind) -> Item:
        if self._open is not None and self._open.kind == kind:
            return self._open
        return self._begin_item(Item(len(self.items), kind))

    def _call_item(self, call_id: str, name: str) -> Item:
        """A call's first piece has its id; the further ones of the same call have none."""
        item = self._open
        if item is not None and item.kind == "call" and call_id in ("", item.call_id):
            return item
        return self._begin_item(Item(len(self.items), "call", call_id, name))

    def _begin_item(self, item: Item) -> Item:
        self._close_item()
        self.items.append(item)
        self._open = item
        self.begin_item(item)
        return item

    def _grow(self, item: Item, piece: str) -> None:
        item.pieces.append(piece)
        self.grow_item(item, piece)

    def _close_item(self) -> None:
        item, self._open = self._open, None
        if item is not None:
            self.end_item(item)

    def _end(self) -> None:
        self._close_item()
        self._ended = True
        self.end()

    def emit(self, kind: str, **fields: Any) -> None:
        """One event for the client."""
        told = msgspec.json.encode({"type": kind, **fields})
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), told))

    # --- how the dialect tells it

    @staticmethod
    @abstractmethod
    def error_body(status: int, message: str, param: str | None) -> bytes:
        """The document of an error."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The whole answer."""

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def begin_item(self, item: Item) -> None: ...

    @abstractmethod
    def grow_item(self, item: Item, piece: str) -> None: ...

    @abstractmethod
    def end_item(self, item: Item) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    @abstractmethod
    def fail(self, message: str, status: int) -> None: ...


def error_of(body: bytes) -> tuple[str, str | None]:
    """Message and field of an error document of chat; any other body is its own message."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any])["error"]
        return str(error["message"]), error.get("param")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return body[:500].decode("utf-8", "replace"), None
