"""A peer for the client: a small OpenAI-like server on a real socket, one habit per model name."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
ADMIN_TOKEN = "let-me-look"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": fields}])


def usage(tokens: int) -> bytes:
    return event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": tokens})


DONE = b"data: [DONE]\n\n"
ERROR = event(error={"message": "engine gone", "type": "server_error", "code": "engine_broke"})


class FakeOpenAI:
    """Answers by the model's name; keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.connections = 0
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.waiting = 0
        self.waiting_max = 0
        self.crowd = asyncio.Event()
        self.models = ["good", "slow"]
        self.time_scale = 0.0
        self.catalog: list[dict[str, Any]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        path = lines[0].split()[1]
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/v1/models":
            return await self._whole(writer, 200, {"data": [{"id": m} for m in self.models]})
        if path in ("/status", "/catalog"):
            told = headers.get("authorization") == f"Bearer {ADMIN_TOKEN}" and self.time_scale
            admin = {"time_scale": self.time_scale, "models": self.catalog}
            return await self._whole(writer, 200 if told else 401, admin)
        asked = json.loads(body)
        self.bodies.append(asked)
        self.ids.append(headers.get("x-request-id", ""))
        self.asked.put_nowait(asked["model"])
        return await self._chat(asked, reader, writer)

    async def _whole(
        self, writer: asyncio.StreamWriter, status: int, document: dict[str, Any]
    ) -> bool:
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        return True

    async def _chat(
        self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match asked["model"]:
            case "refuse":
                error = {"message": "full", "type": "overloaded", "code": "queue_full"}
                return await self._whole(writer, 503, {"error": error})
            case "vanish":
                return False
            case "nonsense":
                writer.write(b"this is not HTTP at all\r\n\r\n")
                return False
            case "never":
                await reader.read(1)  # until the client leaves
                self.left.put_nowait("never")
                return False
            case name:
                writer.write(HEAD + b"x-warmtide-rung: serving\r\nx-warmtide-held-ms: 0\r\n\r\n")
                for part in self._parts(name):
                    await writer.drain()
                    if part == b"crowd":
                        await self._crowd()
                    elif part == b"die":
                        return False
                    else:
                        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return True

    async def _crowd(self) -> None:
        """Hold answers until three requests are open at once: an open loop gets them here."""
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        if self.waiting >= 3:
            self.crowd.set()
        await self.crowd.wait()
        self.waiting -= 1

    @staticmethod
    def _parts(name: str) -> list[bytes]:
        begun = [delta(role="assistant", content=""), delta(content="one")]
        rest = [delta(content=" two"), usage(2), DONE]
        held = [b": warmtide keep-alive\n\n", b": warmtide replica=r1 rung=parked held-ms=1234\n\n"]
        return {
            "good": [*begun, *rest],
            "slow": [begun[0], b"crowd", begun[1], *rest],
            "held": [*held, *begun, *rest],
            "torn": [(begun[1])[:9], (begun[1])[9:] + rest[0][:3], rest[0][3:], rest[1] + DONE],
            "cut-by-error": [*begun, ERROR, DONE],
            "cut-by-death": [*begun, b"die"],
            "no-done": begun,
            "refused-late": [held[0], ERROR, DONE],
            "dead-while-held": [held[0], b"die"],
        }[name]


@asynccontextmanager
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    fake = FakeOpenAI()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield fake
        server.close()
