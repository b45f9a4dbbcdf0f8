"""A request's day, as stories on real sockets: held and woken, sent elsewhere, cut, left."""

import asyncio
import json

import httpx
import pytest

from gateway.telemetry import OutcomeKind
from placement.catalog import Catalog
from placement.plan import Promote, Start
from placement.snapshot import Phase, Rung
from tests.builders import catalog, model
from tests.gateway.world import (
    DONE,
    ROLE,
    USAGE,
    Engine,
    Reply,
    Seen,
    answer,
    ask,
    chat,
    event,
    external,
    gateway,
    until,
)

ONE_MODEL = catalog(model("small"), model("other"))


def scaled(scale: float, **changes: object) -> Catalog:
    return catalog(model("small", **changes), time_scale=scale)


async def test_a_request_for_a_cold_model_is_held_until_the_event_that_it_serves() -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        asked = asyncio.create_task(ask(running))
        await until(lambda: running.gate.admission.held("small") == 1)
        assert not engine.seen
        running.fleet.put("r1", "small", engine)
        response = await asked
        assert response.status_code == 200
        assert response.headers["x-warmtide-replica"] == "r1"
        assert response.headers["x-warmtide-rung"] == "parked"
        assert int(response.headers["x-warmtide-held-ms"]) >= 0
        assert running.gate.telemetry.models["small"].cold_starts["parked"] == 1


async def test_holding_a_request_asks_for_the_quickest_climb() -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        asked = asyncio.create_task(ask(running))
        await until(lambda: running.fleet.actions)
        action = running.fleet.actions[0]
        assert isinstance(action, Promote)
        assert action.replica_id == "r1"
        assert action.why.numbers["held"] == 1
        running.fleet.put("r1", "small", engine)
        assert (await asked).status_code == 200


async def test_without_any_engine_one_is_started_and_the_request_says_it_came_from_host() -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        asked = asyncio.create_task(ask(running))
        await until(lambda: running.fleet.actions)
        action = running.fleet.actions[0]
        assert isinstance(action, Start)
        running.fleet.put(action.replica_id, "small", phase=Phase.STARTING)
        running.fleet.put(action.replica_id, "small", engine)
        assert (await asked).headers["x-warmtide-rung"] == "host"


async def test_a_held_stream_hears_heartbeats_and_then_where_it_was_served() -> None:
    async with Engine() as engine, gateway(scaled(50)) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        async with (
            httpx.AsyncClient(base_url=running.url, timeout=20) as client,
            client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response,
        ):
            assert response.headers["x-warmtide-held"] == "true"
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith(": keep-alive")
            running.fleet.put("r1", "small", engine)
            rest = [line async for line in lines if line]
        notes = [line for line in rest if line.startswith(": warmtide")]
        assert len(notes) == 1
        assert "replica=r1 rung=parked held-ms=" in notes[0]
        assert rest[-1] == "data: [DONE]"
        record = running.gate.telemetry.models["small"]
        assert record.outcomes[OutcomeKind.ANSWERED] == 1
        assert min(record.ttft.latest) >= 5_000_000, "heartbeats are no first token"


async def test_a_deadline_that_passes_while_held_is_a_504_that_need_not_be_retried() -> None:
    async with Engine() as engine, gateway(scaled(20, deadline_us=40_000_000)) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        response = await ask(running)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        assert response.headers["x-should-retry"] == "false"
        assert running.gate.admission.held("small") == 0


async def test_who_cannot_wait_for_the_climb_is_told_when_to_come_back() -> None:
    async with gateway(ONE_MODEL) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            response = await client.post(
                "/v1/chat/completions", json=chat(), headers={"x-request-timeout-ms": "2000"}
            )
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "model_loading"
        assert 20 <= int(response.headers["retry-after"]) <= 40
        await until(lambda: any(isinstance(a, Start) for a in running.fleet.actions))


async def test_a_model_that_no_node_can_hold_is_refused_at_once() -> None:
    whole = catalog(model("huge", weights_bytes=500_000_000_000))
    async with gateway(whole) as running:
        response = await ask(running, model="huge")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "no_capacity"


async def test_a_full_queue_refuses_with_429() -> None:
    crowded = catalog(model("small"))
    async with gateway(crowded) as running:
        running.gate.admission.held_max = 1
        asked = asyncio.create_task(ask(running))
        await until(lambda: running.gate.admission.held("small") == 1)
        refused = await ask(running)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: running.gate.admission.held("small") == 0)


async def test_an_attempt_that_breaks_before_its_first_byte_goes_elsewhere() -> None:
    async def die(_: Seen, reply: Reply) -> None:
        reply.die()

    async with Engine(die) as broken, Engine() as sound, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", broken)
        running.fleet.put("b", "small", sound)
        response = await ask(running)
        assert response.status_code == 200
        assert response.headers["x-warmtide-replica"] == "b"
        assert len(broken.seen) >= 1


async def test_when_the_only_replica_dies_its_request_waits_for_the_next_one() -> None:
    async def die(_: Seen, reply: Reply) -> None:
        reply.die()

    async with Engine(die) as broken, Engine() as sound, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", broken)
        asked = asyncio.create_task(ask(running))
        await until(lambda: broken.seen)
        await until(lambda: running.gate.admission.held("small") == 1)
        running.fleet.drop("a")
        running.fleet.put("b", "small", sound)
        assert (await asked).status_code == 200


async def test_an_engines_trouble_goes_elsewhere_and_a_clients_mistake_comes_back() -> None:
    async def trouble(_: Seen, reply: Reply) -> None:
        await reply.json({"error": {"message": "boom"}}, 500)

    async def mistake(_: Seen, reply: Reply) -> None:
        await reply.json({"error": {"message": "prompt too long"}}, 400)

    async with Engine(trouble) as sick, Engine() as sound, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", sick)
        running.fleet.put("b", "small", sound)
        assert (await ask(running)).status_code == 200
        running.fleet.drop("b")
        assert (await ask(running)).status_code == 500
        sick.script = mistake
        response = await ask(running)
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "prompt too long"


@pytest.mark.parametrize("half", [b"", b'data: {"choices":[{"delta":{"con'])
async def test_a_stream_that_breaks_off_ends_with_an_error_event_the_client_can_read(
    half: bytes,
) -> None:
    async def break_off(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(ROLE + event("one "))
        if half:
            await reply.chunk(half)
        reply.die()

    async with Engine(break_off) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        response = await ask(running, stream=True)
        events = [e for e in response.text.split("\n\n") if e]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"
        assert all(json.loads(e.removeprefix("data: ")) for e in events), "no half event came out"
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.CUT] == 1


async def test_an_engine_that_falls_silent_is_given_up_with_an_error_event() -> None:
    async def hang(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(event("one "))
        await asyncio.sleep(60)

    async with Engine(hang) as engine, gateway(scaled(50, deadline_us=30_000_000)) as running:
        running.fleet.put("a", "small", engine)
        response = await ask(running, stream=True)
        assert '"code":"engine_failed"' in response.text
        await asyncio.wait_for(engine.seen[0].gone.wait(), 5)


async def test_a_client_that_leaves_frees_the_engine_at_once() -> None:
    async def slow(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(event("one "))
        await asyncio.sleep(60)

    async with Engine(slow) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        async with (
            httpx.AsyncClient(base_url=running.url) as client,
            client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response,
        ):
            await anext(response.aiter_bytes())
        await asyncio.wait_for(engine.seen[0].gone.wait(), 5)
        await until(lambda: sum(running.gate.in_flight().values()) == 0)
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.CANCELLED] == 1


async def test_a_client_that_leaves_at_the_last_event_has_got_its_answer() -> None:
    """Official clients do: they need not wait for the end of the framing."""

    async def lingers(seen: Seen, reply: Reply) -> None:
        await reply.head()
        for data in (ROLE, event("one "), USAGE, DONE):
            await reply.chunk(data)
        await seen.gone.wait()

    async with Engine(lingers) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        async with (
            httpx.AsyncClient(base_url=running.url) as client,
            client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response,
        ):
            lines = response.aiter_lines()
            while await anext(lines) != "data: [DONE]":
                pass
        await until(lambda: sum(running.gate.in_flight().values()) == 0)
        seen = running.gate.telemetry.models["small"]
        assert seen.outcomes == {OutcomeKind.ANSWERED: 1}
        assert seen.output_tokens.total == 2


async def test_a_slow_reader_slows_its_engine_and_nobody_buffers_the_rest() -> None:
    sent = 0
    piece = event("x" * 50_000)

    async def flood(_: Seen, reply: Reply) -> None:
        nonlocal sent
        await reply.head()
        for _i in range(2000):
            await reply.chunk(piece)
            sent += len(piece)
        await reply.chunk(DONE)
        await reply.last()

    async with Engine(flood) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps(chat(stream=True)).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )
        await reader.read(100)
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 40_000_000, "of a hundred megabytes only what sockets and limits hold"
        writer.transport.abort()


async def test_a_model_known_upstream_by_another_name_is_asked_for_by_that_name() -> None:
    async with Engine() as engine:
        whole = catalog(external("mine", engine.url, upstream_model="org/theirs"))
        async with gateway(whole) as running:
            response = await ask(running, model="mine", temperature=0.50)
            assert response.status_code == 200
            assert engine.seen[0].json == {**chat("org/theirs"), "temperature": 0.5}


async def test_an_external_endpoint_that_is_down_is_a_503_and_is_tried_again_by_itself() -> None:
    engine = Engine()
    async with engine:
        pass  # its port is free again
    async with gateway(catalog(external("mine", engine.url))) as running:
        response = await ask(running, model="mine")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "no_capacity"
        async with engine:
            await until(
                lambda: all(
                    x.ready(running.gate.now_us()) for x in running.gate.table.lanes("mine")
                )
            )
            assert (await ask(running, model="mine")).status_code == 200


async def test_connections_to_engines_are_kept_and_a_stale_one_costs_nobody_anything() -> None:
    async def answer_and_close_later(seen: Seen, reply: Reply) -> None:
        await answer(seen, reply)

    async with Engine(answer_and_close_later) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        for _ in range(3):
            assert (await ask(running)).status_code == 200
        assert engine.connections == 1

        async def die_once(seen: Seen, reply: Reply) -> None:
            engine.script = answer
            reply.die()

        engine.script = die_once
        assert (await ask(running)).status_code == 200, "a fresh connection is tried by itself"


async def test_saturated_replicas_hold_without_a_cold_start_and_serve_in_order() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def when_told(seen: Seen, reply: Reply) -> None:
        await gates[int(seen.json["user"])].wait()
        await answer(seen, reply)

    narrow = catalog(model("small", max_num_seqs=1, max_replicas=1))
    async with Engine(when_told) as engine, gateway(narrow) as running:
        running.fleet.put("a", "small", engine)
        first = asyncio.create_task(ask(running, user="0"))
        await until(lambda: len(engine.seen) == 1)
        second = asyncio.create_task(ask(running, user="1"))
        await until(lambda: running.gate.admission.held("small") == 1)
        third = asyncio.create_task(ask(running, user="2"))
        await until(lambda: running.gate.admission.held("small") == 2)
        for gate in gates:
            gate.set()
        answers = [await first, await second, await third]
        assert [seen.json["user"] for seen in engine.seen] == ["0", "1", "2"]
        assert all(a.headers["x-warmtide-rung"] == "serving" for a in answers)
        assert not running.gate.telemetry.models["small"].cold_starts
