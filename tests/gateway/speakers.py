"""Engines and clients of every dialect for the gateway's tests, under one description.

In: nothing. Out: `Speaker`s: a route, a body for it, what a healthy engine streams and answers, how
an official client reads it. Engines' words are those of our own translations, whose shape is tested
against the official packages elsewhere.
"""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
from anthropic import AsyncAnthropic
from hypothesis import strategies as st
from openai import AsyncOpenAI

from placement.engines.dialects.chat import Translation
from placement.engines.dialects.messages import MessagesTranslation
from placement.engines.dialects.responses import ResponsesTranslation
from tests.gateway.world import DONE, ROLE, USAGE, WHOLE, Reply, Seen, event

reads = st.lists(st.floats(0, 1, exclude_max=True), max_size=12)
"""Where a stream is cut into reads, as shares of its length."""


def cut(stream: bytes, shares: list[float]) -> list[bytes]:
    """The reads that a stream arrives in."""
    at = sorted({0, len(stream), *(int(share * len(stream)) for share in shares)})
    return [stream[start:stop] for start, stop in pairwise(at)]


ASK: Any = [{"role": "user", "content": "hi"}]
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
CHUNKS = (ROLE, event("one "), event("two"), FINISH, USAGE, DONE)
SAID = "one two"


def openai_of(url: str, key: str = "none", retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries)


def anthropic_of(url: str, key: str = "none", retries: int = 0) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=url, api_key=key, max_retries=retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """One dialect."""

    path: str
    body: dict[str, Any]
    translate: Callable[[bytes], Translation] | None
    stream_text: Callable[[str, str], Coroutine[Any, Any, str]]
    """URL and key, to the text that the official client reads from a stream."""

    def engine_events(self) -> list[bytes]:
        """A healthy stream, a list of one event each."""
        if self.translate is None:
            return list(CHUNKS)
        translation = self.translate(msgspec.json.encode(self.body | {"stream": True}))
        stream = b"".join(translation.events(piece) for piece in CHUNKS)
        return [piece + b"\n\n" for piece in stream.split(b"\n\n") if piece]

    def whole(self) -> dict[str, Any]:
        if self.translate is None:
            return WHOLE
        return self.translate(msgspec.json.encode(self.body)).whole(WHOLE)

    async def answer(self, seen: Seen, reply: Reply) -> None:
        """An engine in good health."""
        if not seen.json.get("stream"):
            await reply.json(self.whole())
            return
        await reply.head()
        for piece in self.engine_events():
            await reply.chunk(piece)
        await reply.last()

    def failure_in(self, text: str) -> dict[str, Any]:
        """The error at the end of a stream, in this dialect's shape."""
        last = [piece for piece in text.split("\n\n") if piece][-1]
        name, _, data = last.rpartition("data: ")
        told: dict[str, Any] = json.loads(data)
        if self.translate is not None:
            assert name == "event: error\n"
            assert told["type"] == "error"
        error: dict[str, Any] = told["error"]
        return error


async def _chat(url: str, key: str) -> str:
    async with openai_of(url, key) as client:
        chat = client.chat.completions
        stream = await chat.create(model="small", messages=ASK, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def _responses(url: str, key: str) -> str:
    async with openai_of(url, key) as client:
        stream = await client.responses.create(model="small", input=ASK, stream=True)
        pieces = [e.delta async for e in stream if e.type == "response.output_text.delta"]
    return "".join(pieces)


async def _messages(url: str, key: str) -> str:
    async with (
        anthropic_of(url, key) as client,
        client.messages.stream(model="small", messages=ASK, max_tokens=16) as stream,
    ):
        return await stream.get_final_text()


CHAT = Speaker(
    path="/v1/chat/completions",
    body={"model": "small", "messages": ASK},
    translate=None,
    stream_text=_chat,
)
RESPONSES = Speaker(
    path="/v1/responses",
    body={"model": "small", "input": ASK},
    translate=ResponsesTranslation,
    stream_text=_responses,
)
MESSAGES = Speaker(
    path="/v1/messages",
    body={"model": "small", "messages": ASK, "max_tokens": 16},
    translate=MessagesTranslation,
    stream_text=_messages,
)
SPEAKERS = (CHAT, RESPONSES, MESSAGES)
