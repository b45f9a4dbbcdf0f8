"""Engines' own metrics beside the gateway's: merged where they come, marked where they do not."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.scraper import Scraper
from placement.engines.readings import Meaning, State
from placement.snapshot import Rung
from tests.builders import catalog, model
from tests.gateway.test_metrics import samples
from tests.gateway.world import Engine, Reply, Running, Script, Seen, external, gateway
from tests.placement.test_readings import VLLM

ONE = catalog(model("small"))


def tells(text: str, status: int = 200) -> Script:
    """An engine with this on its metrics page."""

    async def script(seen: Seen, reply: Reply) -> None:
        assert seen.path == "/metrics"
        body = text.encode()
        reply.writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return script


@asynccontextmanager
async def scraping(running: Running) -> AsyncIterator[Scraper]:
    scraper = Scraper(running.gate)
    yield scraper
    await scraper.close()


async def test_what_waits_in_engines_is_part_of_the_queue() -> None:
    async with Engine(tells(VLLM)) as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        running.fleet.put("b", "small", engine)
        async with scraping(running) as scraper:
            await scraper.round()
        queue = running.gate.queue_depth("small", running.gate.now_us())
        assert (queue.total, queue.engines.state) == (6, State.FRESH)
        seen = samples(running)
        assert seen[("warmtide_queue_depth", "fresh", "small", "")] == 6
        assert seen[("warmtide_engine_kv_cache_usage_ratio", "small", "a", "")] == 0.25
        assert seen[("warmtide_engine_readings", "small", "fresh", "")] == 2


async def test_an_engine_that_does_not_say_is_missing_and_not_idle() -> None:
    async with Engine(tells("nothing of interest\n")) as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        async with scraping(running) as scraper:
            await scraper.round()
        queue = running.gate.queue_depth("small", running.gate.now_us())
        assert (queue.engines.value, queue.engines.state) == (None, State.MISSING)
        seen = samples(running)
        assert seen[("warmtide_engine_readings", "small", "missing", "")] == 1
        assert not [key for key in seen if key[0] == "warmtide_engine_running"]


async def test_readings_grow_old_and_the_engines_trouble_is_kept_in_words() -> None:
    async with Engine(tells(VLLM)) as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        async with scraping(running) as scraper:
            await scraper.round()
            engine.script = tells("vllm:num_requests_running lots\n")
            await scraper.round()
        readings = running.gate.readings["a"]
        assert "Prometheus" in readings.problem
        later_us = running.gate.now_us() + 10 * running.gate.readings_fresh_us()
        assert running.gate.queue_depth("small", later_us).engines.state is State.STALE
        assert readings.values[Meaning.RUNNING] == 2


async def test_an_engine_that_hangs_costs_only_its_own_reading() -> None:
    async def hangs(seen: Seen, _reply: Reply) -> None:
        await seen.gone.wait()

    async with Engine(hangs) as silent, Engine(tells(VLLM)) as good, gateway(ONE) as running:
        running.fleet.put("a", "small", silent)
        running.fleet.put("b", "small", good)
        async with scraping(running) as scraper:
            await scraper.round()
        assert running.gate.readings["a"].at_us == 0
        assert running.gate.readings["a"].problem
        assert running.gate.readings["b"].values[Meaning.RUNNING] == 2


async def test_who_refuses_is_left_alone_and_gets_no_key() -> None:
    async with Engine(tells("no", 404)) as engine:
        outside = external("theirs", engine.url + "/api", api_key_env="THEIR_KEY")

        async def refuses(seen: Seen, reply: Reply) -> None:
            assert seen.path == "/api/metrics"
            assert "authorization" not in seen.headers
            await tells("no", 404)(Seen("/metrics", {}, b""), reply)

        engine.script = refuses
        async with gateway(catalog(outside)) as running, scraping(running) as scraper:
            for _ in range(3):
                await scraper.round()
            assert len(engine.seen) == 1
            (readings,) = running.gate.readings.values()
            assert readings.problem == "GET /metrics: 404"


async def test_an_address_that_cannot_be_asked_costs_only_its_own_reading() -> None:
    async with Engine(tells(VLLM)) as engine:
        both = external("theirs", "http://127.0.0.300:9", engine.url)
        async with gateway(catalog(both)) as running, scraping(running) as scraper:
            await scraper.round()
            bad, good = (running.gate.readings[lane.lane_id] for lane in running.gate.open_lanes())
            assert bad.problem
            assert good.values[Meaning.RUNNING] == 2


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_compressed_page_is_not_unpacked(layers: int) -> None:
    """A kilobyte of gzip in gzip holds gigabytes; nobody asked for any of it."""
    body = VLLM.encode()
    for _ in range(layers):
        body = gzip.compress(body)

    async def packed(seen: Seen, reply: Reply) -> None:
        assert seen.headers["accept-encoding"] == "identity"
        encoding = ", ".join(["gzip"] * layers)
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {len(body)}"
        reply.writer.write(head.encode() + b"\r\n\r\n" + body)

    async with Engine(packed) as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        async with scraping(running) as scraper:
            await scraper.round()
        readings = running.gate.readings["a"]
        assert (readings.values, "encoded" in readings.problem) == ({}, True)


async def test_a_replica_that_steps_down_is_forgotten() -> None:
    async with Engine(tells(VLLM)) as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        async with scraping(running) as scraper:
            await scraper.round()
            running.fleet.put("a", "small", engine, rung=Rung.PARKED)
            await scraper.round()
        assert running.gate.readings == {}
        queue = running.gate.queue_depth("small", running.gate.now_us())
        assert (queue.total, queue.engines.state) == (0, State.FRESH)
