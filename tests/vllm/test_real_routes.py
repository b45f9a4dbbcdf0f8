"""Every route on a real vLLM: the official clients read what it says, the gateway counts it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from anthropic import Anthropic

from tests.vllm.fleet import ADAPTED, SAFETY_S, TUNED, Fleet, until

pytestmark = pytest.mark.heavy

ASK: Any = [{"role": "user", "content": "The capital of France is"}]
NAMES = pytest.mark.parametrize("name", [ADAPTED, TUNED])


@pytest.fixture(scope="module")
def claude(fleet: Fleet) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=fleet.gateway.url, api_key="none", max_retries=0, timeout=SAFETY_S
    ) as found:
        yield found


def post(fleet: Fleet, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{fleet.gateway.url}{path}", json=body, timeout=SAFETY_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def tokens(fleet: Fleet) -> tuple[int, int]:
    counted = fleet.gateway.model(ADAPTED)["tokens"]
    return counted["prompt"], counted["output"]


def grown(fleet: Fleet, before: tuple[int, int], prompt: int, output: int) -> None:
    """The gateway has counted so many tokens more, and no others."""
    wanted = before[0] + prompt, before[1] + output
    until(lambda: tokens(fleet) == wanted, f"{wanted} tokens, not {tokens(fleet)}")


@NAMES
def test_a_response_plain_and_streamed_is_counted(fleet: Fleet, name: str) -> None:
    before = tokens(fleet)
    asked: Any = {"model": name, "input": ASK, "max_output_tokens": 12, "temperature": 0}
    with fleet.client() as client:
        whole = client.responses.create(**asked)
        events = list(client.responses.create(stream=True, **asked))
    assert whole.usage is not None
    last: Any = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == whole.output_text
    usage = last.response.usage
    prompt = whole.usage.input_tokens + usage.input_tokens
    grown(fleet, before, prompt, whole.usage.output_tokens + usage.output_tokens)


@NAMES
def test_a_message_plain_and_streamed_is_counted(
    fleet: Fleet, claude: Anthropic, name: str
) -> None:
    before = tokens(fleet)
    asked: Any = {"model": name, "messages": ASK, "max_tokens": 12}
    asked["extra_body"] = {"temperature": 0}
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        said = stream.get_final_text()
        final = stream.get_final_message()
    assert said == "".join(block.text for block in whole.content if block.type == "text")
    prompt = whole.usage.input_tokens + final.usage.input_tokens
    grown(fleet, before, prompt, whole.usage.output_tokens + final.usage.output_tokens)
    counted = claude.messages.count_tokens(model=name, messages=ASK)
    assert counted.input_tokens == whole.usage.input_tokens


def test_a_stream_that_asks_for_no_usage_is_counted_and_shows_none(fleet: Fleet) -> None:
    before = tokens(fleet)
    with fleet.client() as client:
        whole = client.chat.completions.create(
            model=ADAPTED, messages=ASK, max_tokens=12, temperature=0
        )
        assert whole.usage is not None
        chat = client.chat.completions.create(
            model=ADAPTED, messages=ASK, max_tokens=12, temperature=0, stream=True
        )
        assert all(chunk.usage is None and chunk.choices for chunk in chat)
    usage = whole.usage
    grown(fleet, before, 2 * usage.prompt_tokens, 2 * usage.completion_tokens)


@NAMES
def test_tokens_are_those_of_usage_and_come_back_as_their_text(fleet: Fleet, name: str) -> None:
    told = post(fleet, "/tokenize", model=name, prompt="The capital", return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 1024
    back = post(fleet, "/detokenize", model=name, tokens=told["tokens"])
    assert "The capital" in back["prompt"]
    chat = post(fleet, "/v1/chat/completions", model=name, messages=ASK, max_tokens=1)
    asked = post(fleet, "/tokenize", model=name, messages=ASK)
    assert asked["count"] == chat["usage"]["prompt_tokens"]


def test_errors_of_the_engine_keep_its_words_in_each_dialect(fleet: Fleet) -> None:
    for path, body in (
        ("/v1/messages", {"messages": ASK, "max_tokens": 5, "tool_choice": {"type": "tool"}}),
        ("/v1/responses", {"input": "hi", "tool_choice": "required"}),
        ("/detokenize", {"tokens": [10**12]}),
    ):
        answer = httpx.post(
            f"{fleet.gateway.url}{path}",
            json={"model": ADAPTED, **body},
            timeout=SAFETY_S,
            trust_env=False,
        )
        assert answer.is_client_error, answer.text
        assert answer.json()["error"]["message"]
