"""A body nested as deep as is just taken at the door is not too deep further in."""

import asyncio

import pytest

from placement.snapshot import Rung
from tests.builders import catalog, model
from tests.gateway.world import Engine, gateway, post, until

ALIASED = catalog(model("small", aliases=("nick",), max_num_seqs=64))


def nested(depth: int) -> bytes:
    deep = b"[" * depth + b"]" * depth
    return post(b'{"model":"nick","messages":[{"role":"user","content":"hi"}],"deep":%b}' % deep)


@pytest.mark.parametrize("rung", [Rung.SERVING, Rung.PARKED])
async def test_a_body_of_any_depth_ends_in_one_outcome_also_where_it_is_written_anew(
    rung: Rung,
) -> None:
    """An alias is replaced, usage asked for: the body is decoded a second time."""
    async with Engine() as engine, gateway(ALIASED) as running:
        running.fleet.put("a", "small", engine, rung=rung)
        asked = [asyncio.create_task(running.raw(nested(depth))) for depth in range(800, 1000)]
        if rung is Rung.PARKED:
            await until(lambda: running.gate.admission.held("small") > 20)
            running.fleet.put("a", "small", engine)
        answers = await asyncio.gather(*asked)
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200", b"HTTP/1.1 400"}
        await until(lambda: not running.connections)
        seen = running.gate.telemetry.models
        assert sum(m.outcomes.total() for m in seen.values()) == len(asked)
        assert running.gate.in_flight() == {"a": 0}
