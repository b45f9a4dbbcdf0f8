"""The unmodified `llm-comply` package against a running gateway, check by check.

What each check says is listed, warnings too, so that a regression shows and an improvement as well.
To switch on another part of it, add a line to `PARTS`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from tests.integration.running import Gateway, catalog_text, emulated, python, running

pytestmark = pytest.mark.integration

SCALE = 50.0
NAME = "gpt-5-emulated"
"""By their names, llm-comply takes some models to reason, and asks only these to."""


class Check(NamedTuple):
    """What a check comes to. `why` is empty where it passes without a word."""

    status: str
    why: str = ""
    told: tuple[str, ...] = ()
    """What llm-comply says of it: errors and warnings, each by its beginning."""


PASSES = Check("passed")

EMULATED_CHAT = {
    "chat-basic-response": PASSES,
    "chat-system-prompt": PASSES,
    "chat-multi-turn": PASSES,
    "chat-tool-calling": PASSES,
    "chat-streaming-response": PASSES,
    "chat-streaming-usage": PASSES,
    "chat-image-input": PASSES,
    "chat-reasoning-summary": Check(
        "passed",
        "an emulated engine makes words up and reasons about none of them",
        ("usage.completion_tokens_details.reasoning_tokens is 0",),
    ),
    "chat-error-handling": PASSES,
}

NO_PICTURES = Check(
    "failed",
    "translated to chat for an engine that reads text only: a 400 says so",
    ("HTTP 400 (expected [200])",),
)
NOTHING_KEPT = Check("failed", "no answers are kept here: a 501 says so", ("HTTP 501 (expected",))

EMULATED_RESPONSES = {
    "basic-response": PASSES,
    "system-prompt": PASSES,
    "multi-turn": PASSES,
    "tool-calling": PASSES,
    "streaming-response": PASSES,
    "streaming-usage": PASSES,
    "image-input": NO_PICTURES,
    "assistant-phase": PASSES,
    "response-output-phase-schema": PASSES,
    "compact-response": NOTHING_KEPT,
    "compact-missing-model": NOTHING_KEPT,
    "reasoning-summary": Check(
        "failed",
        "an emulated engine reasons about nothing, so there is nothing to sum up",
        ("response.reasoning.summary is null",),
    ),
    "error-handling": PASSES,
}

EMULATED_MESSAGES = {
    "anth-basic-response": PASSES,
    "anth-system-prompt": PASSES,
    "anth-multi-turn": PASSES,
    "anth-tool-calling": PASSES,
    "anth-streaming-response": PASSES,
    "anth-streaming-usage": PASSES,
    "anth-image-input": NO_PICTURES,
    "anth-thinking-display": Check(
        "skipped",
        "by its name it does not think",
        ("extended thinking requires",),
    ),
    "anth-error-handling": PASSES,
}

PARTS: dict[str, Mapping[str, Check]] = {
    "openai-chat": EMULATED_CHAT,
    "open-responses": EMULATED_RESPONSES,
    "anthropic": EMULATED_MESSAGES,
}
"""llm-comply's formats, each with what its checks come to on an emulated engine."""

REAL_CHAT = {
    "chat-system-prompt": PASSES,
    "chat-streaming-usage": PASSES,
    "chat-image-input": Check(
        "failed",
        "the model reads text only, and says so with a 400",
        ("HTTP 400 (expected [200])",),
    ),
    "chat-reasoning-summary": Check(
        "skipped",
        "by its name it does not reason",
        ("reasoning requires o-series or gpt-5 models",),
    ),
    "chat-error-handling": PASSES,
}
"""Those that SmolLM2 answers in a word: the others bound no length, and so small a model may talk
on for a minute. `chat-tool-calling` would fail: its chat template knows no tools."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    text = catalog_text([emulated("llama-8b", aliases=[NAME])])
    with running(tmp_path_factory.mktemp("comply"), text, time_scale=SCALE) as up:
        yield up


async def comply(
    gateway: Gateway, model: str, part: str, *, checks: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """llm-comply's own findings, by check; all checks of the part if none is named."""
    chosen = ("--filter", ",".join(checks)) if checks else ()
    done = await python(
        *("-m", "llm_comply.cli", "--base-url", gateway.base_url, "--api-key", "unused"),
        *("--model", model, "--format", part, "--json", *chosen),
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    return {found["id"]: found for found in done.document["results"]}


def compare(found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Check]) -> None:
    assert set(found) == set(expected), "llm-comply has other checks than are listed here"
    for name, check in expected.items():
        told = [*found[name].get("errors", ()), *found[name].get("warnings", ())]
        seen = f"{name}: {found[name]['status']}, {told}; expected {check}"
        assert found[name]["status"] == check.status, seen
        assert bool(told) == bool(check.told), seen
        for words in check.told:
            assert any(said.startswith(words) for said in told), seen


@pytest.mark.parametrize("part", PARTS)
async def test_an_emulated_model_complies(gateway: Gateway, part: str) -> None:
    compare(await comply(gateway, NAME, part), PARTS[part])


async def test_the_real_small_model_complies_as_far_as_it_can(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running(tmp_path_factory.mktemp("real")) as up:
        found = await comply(up, "smollm2-135m", "openai-chat", checks=REAL_CHAT)
        compare(found, REAL_CHAT)
