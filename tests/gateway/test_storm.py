"""A seeded storm: engines that break in every way, clients that behave in every way, all at once.

What each client saw is compared with what the gateway counted. A seed that failed is run again by
its number: `pytest tests/gateway/test_storm.py -k 'seed7'`.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum

import pytest

from gateway.telemetry import OutcomeKind
from prewarm.windows import Window
from tests.builders import catalog, model
from tests.gateway.world import (
    DONE,
    ROLE,
    USAGE,
    WHOLE,
    Engine,
    Reply,
    Running,
    Seen,
    answer,
    chat,
    event,
    gateway,
    post,
    until,
)

CLIENTS = 60
DEADLINE_US = 20_000_000
CATALOG = catalog(model("small", deadline_us=DEADLINE_US, max_num_seqs=16), time_scale=50)


# --- engines


async def hangs_at_once(seen: Seen, _reply: Reply) -> None:
    await seen.gone.wait()


async def hangs_after_the_first_token(seen: Seen, reply: Reply) -> None:
    await reply.head()
    await reply.chunk(ROLE + event("one "))
    await seen.gone.wait()


async def half_a_chunk(_: Seen, reply: Reply) -> None:
    await reply.head()
    await reply.chunk(event("one "))
    reply.writer.write(b"fff\r\ndata: {")
    await reply.writer.drain()
    reply.writer.close()


async def too_short_a_body(_: Seen, reply: Reply) -> None:
    reply.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{}")
    await reply.writer.drain()
    reply.writer.close()


async def too_long_a_body(_: Seen, reply: Reply) -> None:
    body = json.dumps(WHOLE).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    reply.writer.write(head % len(body) + body + b"HTTP/1.1 200 OK\r\n\r\nsurplus")
    await reply.writer.drain()


async def no_last_event(_: Seen, reply: Reply) -> None:
    await reply.head()
    await reply.chunk(event("one "))
    await reply.last()


async def an_error_in_the_middle(_: Seen, reply: Reply) -> None:
    await reply.head()
    await reply.chunk(event("one "))
    await reply.chunk(b'data: {"error": {"message": "out of memory"}}\n\n')
    await reply.chunk(DONE)
    await reply.last()


async def its_own_500(_: Seen, reply: Reply) -> None:
    await reply.json({"error": {"message": "broken"}}, status=500)


async def not_http(_: Seen, reply: Reply) -> None:
    reply.writer.write(b"\x00\x01\x02 hello\r\n\r\n")
    await reply.writer.drain()


async def dies(_: Seen, reply: Reply) -> None:
    reply.die()


async def dribbles(_: Seen, reply: Reply) -> None:
    """Byte by byte, in good order."""
    await reply.head()
    stream = b"".join((ROLE, event("one "), event("two"), USAGE, DONE))
    for at in range(0, len(stream), 7):
        await reply.chunk(stream[at : at + 7])
    await reply.last()


STREAMED = (
    answer, answer, answer, hangs_at_once, hangs_after_the_first_token, half_a_chunk, no_last_event,
    an_error_in_the_middle, its_own_500, not_http, dies, dribbles,
)  # fmt: skip
WHOLE_ONES = (
    answer, answer, answer, hangs_at_once, too_short_a_body, too_long_a_body, its_own_500, not_http,
    dies,
)  # fmt: skip
SCRIPTS = {script.__name__: script for script in (*STREAMED, *WHOLE_ONES)}


async def as_asked(seen: Seen, reply: Reply) -> None:
    """Each request says how its engine is to treat it."""
    await SCRIPTS[seen.json["user"]](seen, reply)


# --- clients


class Saw(StrEnum):
    """How a request ended, as its client tells it."""

    ANSWER = "answer"
    TROUBLE = "trouble"  # an error, before the answer or inside it, or a broken connection
    LEFT = "left"


Client = Callable[[Running, random.Random], Awaitable[Saw]]


def request(draw: random.Random, script: Callable[..., object], *, stream: bool) -> bytes:
    body = chat(user=script.__name__, stream=stream, pad="x" * draw.choice((0, 0, 3000)))
    return post(body)


def told(got: bytes, *, stream: bool) -> Saw:
    """What bytes until the end of a connection mean to a client that knows HTTP."""
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or b'"error"' in body:
        return Saw.TROUBLE
    if b"transfer-encoding: chunked" in head:
        whole = body.endswith(b"0\r\n\r\n") and (not stream or b"[DONE]" in body)
    else:
        length = next(x for x in head.split(b"\r\n") if x.startswith(b"content-length"))
        whole = len(body) == int(length.split(b":")[1])
    return Saw.ANSWER if whole else Saw.TROUBLE


async def reads_it_all(running: Running, draw: random.Random) -> Saw:
    stream = draw.random() < 0.6
    script = draw.choice(STREAMED if stream else WHOLE_ONES)
    return told(await exchange(running, request(draw, script, stream=stream)), stream=stream)


async def sends_slowly(running: Running, draw: random.Random) -> Saw:
    data = request(draw, answer, stream=False)
    cuts = sorted(draw.randrange(len(data)) for _ in range(6))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return told(await exchange(running, *pieces), stream=False)


async def sends_nonsense(running: Running, draw: random.Random) -> Saw:
    bodies = (
        b"{",
        b'{"model":"small"}',
        b"[" * 5000,
        b'{"model":"nobody","messages":[{"role":"a"}]}',
    )
    return told(await exchange(running, post(draw.choice(bodies))), stream=False)


async def sends_what_is_no_request(running: Running, draw: random.Random) -> Saw:
    """Refused by the connection itself: malformed, its headers too large, its body too large."""
    line = b"POST /v1/chat/completions HTTP/1.1\r\n"
    forms = (
        b"nonsense\r\n\r\n",
        line + b"x: %b\r\n\r\n" % (b"y" * 70_000),
        line + b"content-length: 99999999999\r\n\r\n",
    )
    return told(await exchange(running, draw.choice(forms)), stream=False)


async def leaves_while_it_waits(running: Running, draw: random.Random) -> Saw:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request(draw, hangs_at_once, stream=draw.random() < 0.5))
    await writer.drain()
    await asyncio.sleep(draw.random() * 0.05)
    await leave(reader, writer, draw)
    return Saw.LEFT


async def leaves_in_the_middle(running: Running, draw: random.Random) -> Saw:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request(draw, hangs_after_the_first_token, stream=True))
    got = b""
    while b"one " not in got and b'"error"' not in got:
        piece = await reader.read(65536)
        if not piece:
            return Saw.TROUBLE
        got += piece
    if b'"error"' in got:
        await reader.read()
        writer.close()
        return Saw.TROUBLE
    await leave(reader, writer, draw)
    return Saw.LEFT


async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, draw: random.Random) -> None:
    """By the door, or as a machine that lost its power."""
    if draw.random() < 0.5:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def exchange(running: Running, *pieces: bytes) -> bytes:
    """Send in pieces, read until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    got = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0.01)
        while more := await reader.read(65536):
            got += more
    except ConnectionError:
        pass
    writer.close()
    return got


CLIENT_KINDS: tuple[Client, ...] = (
    reads_it_all, reads_it_all, reads_it_all, reads_it_all, sends_slowly, sends_nonsense,
    sends_what_is_no_request, leaves_while_it_waits, leaves_in_the_middle,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12), ids=lambda seed: f"seed{seed}")
async def test_in_a_storm_every_request_ends_once_and_both_sides_count_alike(seed: int) -> None:
    draw = random.Random(f"{seed}/storm")
    async with Engine(as_asked) as one, Engine(as_asked) as two, gateway(CATALOG) as running:
        for name, engine in (("a", one), ("b", two)):
            running.fleet.put(name, "small", engine)
        began_us = running.gate.now_us()
        clients = [draw.choice(CLIENT_KINDS) for _ in range(CLIENTS)]
        saw = Counter(
            await asyncio.gather(
                *(kind(running, random.Random(f"{seed}/{i}")) for i, kind in enumerate(clients))
            )
        )
        await until(lambda: not running.connections)
        assert_nothing_is_left(running)
        counted: Counter[OutcomeKind] = Counter()
        for seen in running.gate.telemetry.models.values():
            counted.update(seen.outcomes)
        assert counted.total() == CLIENTS == saw.total()
        # A request that was lost on an engine's account may have ended before its client left.
        left_too_late = saw[Saw.LEFT] - counted[OutcomeKind.CANCELLED]
        assert 0 <= left_too_late <= sum(kind is leaves_while_it_waits for kind in clients)
        assert counted[OutcomeKind.ANSWERED] == saw[Saw.ANSWER]
        trouble = counted[OutcomeKind.REFUSED] + counted[OutcomeKind.CUT]
        assert trouble == saw[Saw.TROUBLE] + left_too_late
        assert_the_history_agrees(running, began_us)


def assert_nothing_is_left(running: Running) -> None:
    assert sum(running.gate.in_flight().values()) == 0
    assert running.gate.admission.held("small") == 0


def assert_the_history_agrees(running: Running, began_us: int) -> None:
    """Demand is what reached the model's queue: nonsense and unknown names are none."""
    gate = running.gate
    windows: list[Window] = gate.windows.finish(gate.now_us())
    journeys = sum(seen.offered for name, seen in gate.telemetry.models.items() if name == "small")
    assert sum(w.offered for w in windows) == journeys
    assert sum(w.refused for w in windows) == sum(gate.telemetry.models["small"].refused.values())
    covered_us = sum(w.covered_us for w in windows)
    assert covered_us >= gate.now_us() - began_us - 10**6
    assert not running.gate.windows.finish(gate.now_us() + 1)[-1].levels_us.keys() - {0}
