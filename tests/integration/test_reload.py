"""A changed catalog under running traffic: models come, change and go, no request is dropped."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from openai import AsyncOpenAI

from tests.integration.running import (
    NODE,
    SAFETY_S,
    Finished,
    Gateway,
    catalog_text,
    digest,
    emulated,
    running,
    until,
    warmtide,
)

pytestmark = pytest.mark.integration

SCALE = 50.0
MODELS = ("alpha", "beta", "gamma")
AHEAD = 12
"""So many requests of each model are to come after a change, before traffic may stop."""


def model(model_id: str, **keys: Any) -> dict[str, Any]:
    return emulated(model_id, min_replicas=1, **keys)


BEFORE = catalog_text([model(name) for name in MODELS])
AFTER = catalog_text(
    [
        model(
            "alpha",
            max_num_seqs=4,
            aliases=["first"],
            adapters=[{"id": "alpha-sql", "source": "emulated/sql"}],
        ),
        model("beta"),
        model("delta"),
    ]
)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, BEFORE, time_scale=SCALE) as up:
        until(lambda: all(up.serving(name) for name in MODELS), "every model serves")
        yield up


async def apply(gateway: Gateway, text: str) -> Finished:
    file = gateway.folder / "changed.yaml"
    file.write_text(text)
    return await asyncio.to_thread(
        warmtide, "catalog", "apply", str(file), "--json", "--state-dir", gateway.state_dir
    )


def version(gateway: Gateway) -> str:
    return str(gateway.status()["catalog_version"])


class Traffic:
    """Clients that ask for each model without a pause; every answer is kept, in order."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._stopped = asyncio.Event()
        self.seen: dict[str, list[str]] = {}

    async def ask(self, name: str, tokens: int = 16) -> str:
        try:
            stream = await self._client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": f"{name}, please"}],
                max_tokens=tokens,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            usage = [c.usage.completion_tokens async for c in stream if c.usage is not None]
        except openai.APIError as error:
            return f"{getattr(error, 'status_code', 'broken')} {error.code}"
        return "answered" if usage == [tokens] else f"{usage} instead of {tokens} tokens"

    async def keep_asking(self, name: str) -> None:
        while not self._stopped.is_set():
            self.seen.setdefault(name, []).append(await self.ask(name))

    async def ahead(self, *names: str) -> None:
        """Wait until so many further requests of these models have ended."""
        goals = {name: len(self.seen.get(name, ())) + AHEAD for name in names}
        async with asyncio.timeout(SAFETY_S):
            while any(len(self.seen.get(name, ())) < goal for name, goal in goals.items()):
                await asyncio.sleep(0.01)

    def counts(self, name: str) -> Counter[str]:
        return Counter(self.seen[name])

    @asynccontextmanager
    async def flowing(self, *names: str) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for name in (*names, *names):
                group.create_task(self.keep_asking(name))
            try:
                await self.ahead(*names)
                yield
                await self.ahead(*names)
            finally:
                self._stopped.set()


@asynccontextmanager
async def traffic(gateway: Gateway) -> AsyncIterator[Traffic]:
    async with AsyncOpenAI(
        base_url=gateway.base_url, api_key="not-needed", max_retries=0
    ) as client:
        yield Traffic(client)


def assert_answered_then_gone(seen: list[str]) -> None:
    """Answered up to the removal, 404 from then on, and nothing else in between."""
    gone = "404 model_not_found"
    first = seen.index(gone)
    assert set(seen[:first]) == {"answered"}
    # Two clients ask at once: one may still be answered when the other is told already.
    assert set(seen[first + 1 :]) <= {gone, "answered"}
    assert set(seen[first + 2 :]) == {gone}


async def test_models_come_change_and_go_while_requests_flow(gateway: Gateway) -> None:
    old = version(gateway)
    async with traffic(gateway) as clients:
        long = asyncio.create_task(clients.ask("gamma", tokens=3000))
        async with clients.flowing(*MODELS):
            done = await apply(gateway, AFTER)
        assert done.code == 0, done
        assert await long == "answered", "what had begun on a removed model is served to its end"
        assert set(clients.counts("alpha")) == set(clients.counts("beta")) == {"answered"}
        assert_answered_then_gone(clients.seen["gamma"])
        names = ("delta", "first", "alpha-sql")
        assert {name: await clients.ask(name) for name in names} == dict.fromkeys(names, "answered")
    told = done.document
    assert (told["added"], told["changed"], told["removed"]) == (["delta"], ["alpha"], ["gamma"])
    assert version(gateway) == told["version"] != old
    rows = [row["model"] for row in gateway.status()["models"]]
    assert rows == ["alpha", "beta", "delta"]
    until(lambda: not left_of(gateway, "gamma"), "the removed model's engine ends")


def left_of(gateway: Gateway, model_id: str) -> list[str]:
    """Replicas on the nodes that no model of the catalog accounts for."""
    document = gateway.status()
    known = sum(len(row["replicas"]) for row in document["models"])
    there = sum(node["replicas"] for node in document["nodes"])
    return [model_id] * (there - known)


async def test_whoever_waits_for_a_model_is_served_though_it_is_removed(tmp_path: Path) -> None:
    cold = catalog_text([model("alpha"), emulated("gamma", weights="40 GB", layers=80)])
    without = catalog_text([model("alpha")])
    with running(tmp_path, cold, time_scale=10.0) as gateway:
        async with traffic(gateway) as clients:
            waiting = asyncio.create_task(clients.ask("gamma"))
            while not gateway.model("gamma")["held"]:
                await asyncio.sleep(0.01)
            assert (await apply(gateway, without)).code == 0
            assert await clients.ask("gamma") == "404 model_not_found"
            assert await waiting == "answered"
        until(lambda: not left_of(gateway, "gamma"), "nobody waits any more")


async def test_sighup_reads_the_file_again(gateway: Gateway) -> None:
    old = version(gateway)
    async with traffic(gateway) as clients:
        async with clients.flowing("alpha", "beta"):
            (gateway.folder / "catalog.yaml").write_text(AFTER)
            os.kill(gateway.process.pid, signal.SIGHUP)
            await asyncio.to_thread(until, lambda: version(gateway) != old, "a new version")
            await clients.ahead("alpha", "beta")
            (gateway.folder / "catalog.yaml").write_text(BEFORE)
            os.kill(gateway.process.pid, signal.SIGHUP)
            await asyncio.to_thread(until, lambda: version(gateway) == old, "the old version")
        assert set(clients.counts("alpha")) == set(clients.counts("beta")) == {"answered"}
        assert await clients.ask("gamma") == "answered"
        assert await clients.ask("delta") == "404 model_not_found"


async def test_a_broken_file_changes_nothing(gateway: Gateway) -> None:
    old = version(gateway)
    broken = AFTER.replace("weights: 8 GB", "weights: 8", 1)
    assert broken != AFTER
    async with traffic(gateway) as clients, clients.flowing(*MODELS):
        done = await apply(gateway, broken)
        (gateway.folder / "catalog.yaml").write_text(broken)
        os.kill(gateway.process.pid, signal.SIGHUP)
        said = "the old one stays"
        await asyncio.to_thread(until, lambda: said in gateway.log.read_text(), said)
    assert done.code == 2
    (problem,) = done.document["problems"]
    assert problem["field"] == "models[0].weights"
    assert problem["remedy"]
    assert f"{gateway.folder / 'catalog.yaml'}:" in gateway.log.read_text()
    assert version(gateway) == old
    assert set().union(*clients.seen.values()) == {"answered"}


def test_whatever_section_changed_is_named_to_people(gateway: Gateway) -> None:
    file = gateway.folder / "sections.yaml"
    sections = {
        "policy": {"idle_park": "2 min"},
        "telemetry": {"scrape": "7 s"},
        "tenants": [{"id": "t", "keys": [digest("wt-somebodys")]}],
    }
    for name, value in sections.items():
        file.write_text(BEFORE + yaml.safe_dump({name: value}))
        done = warmtide("catalog", "apply", file, "--state-dir", gateway.state_dir)
        assert name in done.out.splitlines(), done
        file.write_text(BEFORE)
        assert warmtide("catalog", "apply", file, "--state-dir", gateway.state_dir).code == 0
    again = warmtide("catalog", "apply", file, "--state-dir", gateway.state_dir)
    assert "no change" in again.out


@pytest.mark.parametrize("nodes", [[{**NODE, "gpus": 4}], [NODE, {**NODE, "id": "n1"}]])
async def test_changed_nodes_are_refused(gateway: Gateway, nodes: list[dict[str, Any]]) -> None:
    old = version(gateway)
    text = catalog_text([model(name) for name in (*MODELS, "delta")], nodes=nodes)
    done = await apply(gateway, text)
    assert done.code == 2
    assert "warmtide down" in done.document["error"]
    assert version(gateway) == old
    async with traffic(gateway) as clients:
        assert await clients.ask("alpha") == "answered"
        assert await clients.ask("delta") == "404 model_not_found"


def test_there_must_be_a_gateway_to_change(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(BEFORE)
    done = warmtide("catalog", "apply", tmp_path / "c.yaml", "--json", "--state-dir", tmp_path)
    assert done.code == 1
    assert "warmtide up" in done.document["error"]


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        done = warmtide("catalog", "apply", "no.yaml", "--json", "--state-dir", tmp_path)
    assert done.code == 2
    assert "no.yaml" in done.out
    assert "Traceback" not in done.err
