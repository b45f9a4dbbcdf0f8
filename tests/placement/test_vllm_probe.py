"""What a server says of itself, and what follows: steps that it lacks, versions, its last words."""

from typing import Any

import pytest

from placement.engines.last_words import CHARS_MAX, last_words
from placement.engines.vllm_probe import Offered, lacks, offered, remark, too_old
from placement.snapshot import Rung

WITH_MODE = {"post": {"parameters": [{"name": "level"}, {"name": "mode"}]}}
WHOLE: dict[str, Any] = {
    "paths": {
        "/sleep": WITH_MODE,
        "/is_sleeping": {"get": {}},
        "/v1/chat/completions": {"post": {}},
        **{
            path: {"post": {}}
            for path in (
                *("/wake_up", "/release_kv_cache_memory", "/collective_rpc"),
                *("/reset_prefix_cache", "/v1/load_lora_adapter", "/tokenize"),
            )
        },
    }
}


def without(*paths: str) -> Offered:
    kept = {path: calls for path, calls in WHOLE["paths"].items() if path not in paths}
    return offered("0.31.0", {"paths": kept})


def lacking(offer: Offered, *, on_cpu: bool = False, adapted: bool = False) -> set[tuple[Any, Any]]:
    return {(x.at, x.to) for x in lacks(offer, on_cpu=on_cpu, adapted=adapted)}


def test_a_whole_server_lacks_nothing() -> None:
    whole = offered("0.32.0", WHOLE)
    assert lacking(whole) == set()
    assert {"sleep", "chat", "tokenize"} <= set(whole.calls)
    assert "embeddings" not in whole.calls


def test_a_missing_call_takes_away_the_steps_that_need_it_and_says_which() -> None:
    (lack,) = lacks(without("/release_kv_cache_memory"), on_cpu=False)
    assert (lack.at, lack.to) == (Rung.SERVING, Rung.WARM)
    assert "0.31.0" in lack.why
    assert "release_kv_cache_memory" in lack.why


def test_a_rung_without_a_way_back_is_not_gone_to() -> None:
    assert lacking(without("/collective_rpc")) == {
        (Rung.SHED, Rung.WARM),
        (Rung.SHED, Rung.SERVING),
        (Rung.SERVING, Rung.SHED),
        (Rung.WARM, Rung.SHED),
    }


def test_without_development_calls_an_engine_only_serves() -> None:
    bare = offered("0.32.0", {"paths": {"/v1/chat/completions": {"post": {}}}})
    assert len(lacking(bare)) == 10


def test_a_sleep_that_aborts_what_runs_is_not_used() -> None:
    old = offered("0.31.0", {"paths": {**WHOLE["paths"], "/sleep": {"post": {}}}})
    assert (Rung.SERVING, Rung.PARKED) in lacking(old)
    assert (Rung.PARKED, Rung.SERVING) not in lacking(old)


def test_a_cpu_cannot_give_its_cache_back_whatever_it_lists() -> None:
    assert lacking(offered("0.32.0", WHOLE), on_cpu=True) == {(Rung.SERVING, Rung.WARM)}


def test_adapters_are_not_trusted_to_a_level_2_sleep() -> None:
    found = lacking(offered("0.32.0", WHOLE), adapted=True)
    assert found == {(Rung.SERVING, Rung.SHED), (Rung.WARM, Rung.SHED)}


@pytest.mark.parametrize("said", [{}, {"paths": {}}, {"paths": {"/sleep": {}}}])
def test_a_server_that_says_little_offers_little(said: dict[str, Any]) -> None:
    assert offered("0.32.0", said).calls == ()


def test_versions_that_were_not_tried_are_told() -> None:
    assert remark("0.32.0") == remark("0.33.1+cu130") == ""
    assert "too old" in remark("0.31.2")
    assert too_old("0.31.2")
    assert "newer" in remark("0.40.0")
    assert "newer" in remark("1.0.0")
    assert not too_old("1.0.0")
    assert "unknown form" in remark("dev")
    assert not too_old("dev")


FAILED = """\
(EngineCore pid=8301) INFO 11-24 10:13:20 [core.py:133] Initializing a V1 LLM engine
(EngineCore pid=8301) ERROR 11-24 10:13:23 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=8301) ERROR 11-24 10:13:23 [core.py:1510]     self.check()
(EngineCore pid=8301) ERROR 11-24 10:13:23 [core.py:1510] ValueError: Free memory on device cuda:0 \
(1.2/79.1 GiB) on startup is less than desired GPU memory utilization
Traceback (most recent call last):
  File "core.py", line 1500, in run_engine_core
    engine_core = EngineCoreProc(*args, **kwargs)
ValueError: Free memory on device cuda:0 (1.2/79.1 GiB) on startup is less than desired GPU memory \
utilization
Traceback (most recent call last):
  File "utils.py", line 1431, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory
  warnings.warn('resource_tracker: There appear to be %d '
"""


def test_the_cause_of_a_failed_start_is_the_error_before_the_one_that_says_nothing() -> None:
    said = last_words(FAILED)
    assert said.startswith("ValueError: Free memory on device cuda:0")


def test_a_validation_error_comes_with_its_second_line() -> None:
    said = last_words(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, Sleep mode is not supported on current platform.\n    For further ...\n"
    )
    assert said.endswith("Sleep mode is not supported on current platform.")


def test_a_wrong_argument_is_found_below_its_usage() -> None:
    usage = "usage: api_server.py [-h]\n" * 50
    said = last_words(usage + "api_server.py: error: unrecognized arguments: --no-such-flag\n")
    assert said == "api_server.py: error: unrecognized arguments: --no-such-flag"


def test_other_last_words_are_the_last_lines() -> None:
    assert last_words("") == "it said nothing"
    assert last_words("a\n\nKilled\n") == "a / Killed"
    assert len(last_words("x" * 10_000)) == CHARS_MAX
