"""The client and the open loop against a peer on a real socket."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from loadtests.answers import Answer, Outcome
from loadtests.client import Client
from loadtests.prompts import Prompts
from loadtests.replay import leaving_us, replay
from placement.clock import Clock
from prewarm.traces.records import US, Requests
from tests.loadtests.fake_openai import fake_openai

FAST = Clock(1000.0)


def asking(*models: str, gap_s: float = 1.0, blocks: Sequence[tuple[int, ...]] = ()) -> Requests:
    """One request per named model, `gap_s` of trace time apart."""
    known = sorted(set(models))
    return Requests(
        start_us=0,
        at_us=np.arange(len(models)) * round(gap_s * US),
        streams=tuple(known),
        stream=np.array([known.index(model) for model in models], np.int64),
        prompt_tokens=np.full(len(models), 50),
        output_tokens=np.full(len(models), 7),
        prefix_blocks=tuple(blocks),
        block_tokens=20,
    )


async def one(
    url: str, model: str, patience_s: float = 20.0, leave_after_s: float | None = None
) -> Answer:
    client = Client(url)
    body = Prompts(0).body(asking(model), 0)
    answer = await client.ask(
        body, request_id="r1", patience_s=patience_s, leave_after_s=leave_after_s
    )
    client.close()
    return answer


@pytest.mark.parametrize(
    ("model", "outcome", "code"),
    [
        ("good", Outcome.ANSWERED, ""),
        ("held", Outcome.ANSWERED, ""),
        ("torn", Outcome.ANSWERED, ""),
        ("refuse", Outcome.REFUSED, "503 queue_full"),
        ("refused-late", Outcome.REFUSED, "200 engine_broke"),
        ("cut-by-error", Outcome.CUT, "200 engine_broke"),
        ("cut-by-death", Outcome.CUT, "broken_stream"),
        ("dead-while-held", Outcome.LOST, "no_answer"),
        ("no-done", Outcome.CUT, "broken_stream"),
        ("vanish", Outcome.LOST, "no_answer"),
        ("nonsense", Outcome.LOST, "no_answer"),
    ],
)
async def test_each_habit_of_a_server_has_its_outcome(
    model: str, outcome: Outcome, code: str
) -> None:
    async with fake_openai() as fake:
        answer = await one(fake.url, model)
    assert (answer.outcome, answer.code) == (outcome, code)


async def test_a_held_stream_tells_its_rung_and_its_wait() -> None:
    async with fake_openai() as fake:
        answer = await one(fake.url, "held")
    assert (answer.rung, answer.held_ms, answer.tokens) == ("parked", 1234.0, 2)


async def test_a_refused_connection_is_lost() -> None:
    async with fake_openai() as fake:
        url = fake.url
    answer = await one(url, "good")
    assert answer.outcome is Outcome.LOST
    assert "ConnectionRefused" in answer.code


async def test_patience_bounds_every_request_and_leaving_is_cancelling() -> None:
    async with fake_openai() as fake:
        assert (await one(fake.url, "never", patience_s=0.2)).outcome is Outcome.LOST
        left = await one(fake.url, "never", leave_after_s=0.2)
        assert left.outcome is Outcome.CANCELLED
        async with asyncio.timeout(20):
            for _ in range(2):
                await fake.left.get()  # the server sees the client leave


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with fake_openai() as fake:
        client = Client(fake.url + "/v1/")
        for _ in range(3):
            body = Prompts(0).body(asking("good"), 0)
            answer = await client.ask(body, request_id="r", patience_s=20)
            assert answer.outcome is Outcome.ANSWERED
        client.close()
    assert fake.connections == 1


async def test_the_loop_is_open_requests_do_not_wait_for_each_other() -> None:
    """The peer answers none before three are open at once; a closed loop would hang here."""
    async with fake_openai() as fake:
        schedule = asking("slow", "slow", "slow")
        answers = await replay(schedule, Client(fake.url), FAST, seed=0)
    assert [answer.outcome for answer in answers] == [Outcome.ANSWERED] * 3
    assert fake.waiting_max == 3


async def test_sent_is_the_sum_of_the_outcomes_and_nothing_is_sent_twice() -> None:
    habits = ["good", "refuse", "cut-by-death", "held", "vanish", "no-done", "refused-late"] * 6
    async with fake_openai() as fake:
        answers = await replay(asking(*habits), Client(fake.url), FAST, seed=0)
    counted = Counter(answer.outcome for answer in answers)
    assert counted == {
        Outcome.ANSWERED: 12,
        Outcome.REFUSED: 12,
        Outcome.CUT: 12,
        Outcome.LOST: 6,
    }
    assert len(fake.bodies) == len(set(fake.ids)) == len(habits)


async def test_the_request_asks_for_what_the_trace_says() -> None:
    async with fake_openai() as fake:
        await replay(asking("good"), Client(fake.url), FAST, seed=0)
    (asked,) = fake.bodies
    assert asked["max_tokens"] == 7
    assert asked["stream_options"] == {"include_usage": True}
    assert asked["ignore_eos"] is True
    assert len(asked["messages"][0]["content"]) == 50 * 4


async def test_an_interrupted_replay_leaves_nothing_open() -> None:
    async with fake_openai() as fake:
        task = asyncio.create_task(
            replay(asking("never", "never", gap_s=0), Client(fake.url), FAST, seed=0)
        )
        async with asyncio.timeout(20):
            for _ in range(2):
                await fake.asked.get()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(2):
                await fake.left.get()


def test_shared_blocks_share_text_and_nothing_else_does() -> None:
    schedule = asking("a", "a", "a", blocks=[(1, 2), (1, 3), ()])
    prompts = Prompts(0)
    texts = [
        prompts.text(i, 50, schedule.prefix_blocks[i], schedule.block_tokens) for i in range(3)
    ]
    assert texts[0][:80] == texts[1][:80]
    assert texts[0][80:90] != texts[1][80:90]
    assert texts[2][:5] != texts[0][:5]
    assert all(len(text) == 200 for text in texts)


def test_the_share_of_those_who_leave_is_seeded() -> None:
    first, again = leaving_us(1000, 0.2, 5), leaving_us(1000, 0.2, 5)
    assert (first == again).all()
    assert 150 < np.isfinite(first).sum() < 250
    assert not np.isfinite(leaving_us(1000, 0.0, 5)).any()
