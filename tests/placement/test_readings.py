"""One name for what engines call differently; what they do not say is never a zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engines.readings import (
    ALIASES,
    LINE_CHARS_MAX,
    LINES_CHARS_MAX,
    Meaning,
    Reading,
    Readings,
    State,
    UnreadableError,
    merged,
    read_metrics,
)

# As vLLM 0.32 writes it, cut to a few families.
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:num_preemptions_total{engine="0",model_name="tiny"} 1.0
vllm:num_preemptions_created{engine="0",model_name="tiny"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="tiny"} 640.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 0.5
python_gc_objects_collected_total{generation="0"} 9000.0
"""


def test_todays_names_are_read() -> None:
    found = read_metrics(VLLM)
    assert found[Meaning.RUNNING] == 2
    assert found[Meaning.WAITING] == 3
    assert found[Meaning.KV_CACHE_USAGE] == 0.25
    assert found[Meaning.PREEMPTIONS] == 1
    assert (found[Meaning.TTFT_SUM_S], found[Meaning.TTFT_COUNT]) == (0.5, 4)
    assert Meaning.PREFIX_HITS not in found


@pytest.mark.parametrize("prefix", ["kserve_vllm:", "ray_vllm_", "ray_vllm:"])
def test_hosts_put_prefixes_before_the_same_names(prefix: str) -> None:
    assert read_metrics(VLLM.replace("vllm:", prefix)) == read_metrics(VLLM)


def test_a_deprecated_name_serves_where_the_new_one_is_not_there() -> None:
    old = VLLM.replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    assert read_metrics(old)[Meaning.KV_CACHE_USAGE] == 0.25
    both = old + 'vllm:kv_cache_usage_perc{model_name="tiny"} 0.75\n'
    assert read_metrics(both)[Meaning.KV_CACHE_USAGE] == 0.75


def test_several_engines_behind_one_address_add_up_and_the_fullest_counts() -> None:
    two = VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("0.25", "0.5")
    assert read_metrics(two)[Meaning.RUNNING] == 4
    assert read_metrics(two)[Meaning.KV_CACHE_USAGE] == 0.5


def test_waiting_by_reason_adds_up_to_waiting() -> None:
    by_reason = (
        'vllm:num_requests_waiting_by_reason{reason="capacity"} 2\n'
        'vllm:num_requests_waiting_by_reason{reason="deferred"} 1\n'
    )
    assert read_metrics(by_reason) == {Meaning.WAITING: 3}


def test_of_several_models_on_one_server_the_one_asked_for_counts() -> None:
    shared = VLLM + VLLM.replace('"tiny"', '"other"')
    assert read_metrics(shared, "other")[Meaning.RUNNING] == 2
    assert read_metrics(shared, "nobody")[Meaning.RUNNING] == 4


def test_an_engine_that_says_nothing_known_has_no_numbers_at_all() -> None:
    assert read_metrics("") == {}
    assert read_metrics("<html>not found</html>") == {}
    assert read_metrics("vllm:num_requests_running NaN\n") == {}


def test_nonsense_after_a_known_name_is_told() -> None:
    with pytest.raises(UnreadableError):
        read_metrics("vllm:num_requests_running many\n")


def test_a_page_that_would_keep_its_reader_busy_is_not_parsed() -> None:
    labels = ",".join(f'a{i}="{i}"' for i in range(LINE_CHARS_MAX // 10))
    squared = f"vllm:num_requests_running{{{labels}}} 1\n"
    endless = "vllm:num_requests_running 1\n" * (LINES_CHARS_MAX // 20)
    for page in (squared, endless):
        with pytest.raises(UnreadableError, match="too many metrics"):
            read_metrics(page)
    assert read_metrics("of no interest\n" * LINES_CHARS_MAX) == {}


@pytest.mark.parametrize("value", ["1e308", "+Inf", "-3"])
def test_what_no_engine_can_mean_is_not_taken(value: str) -> None:
    assert read_metrics(f"vllm:num_requests_waiting {value}\n") == {}


@given(st.text(st.sampled_from('vllm:num_requests_running{}=",# \n0123e+-\\')))
def test_any_text_is_numbers_or_a_named_error(text: str) -> None:
    try:
        found = read_metrics("vllm:num_requests_running" + text)
    except UnreadableError:
        return
    assert all(isinstance(value, float) for value in found.values())


def test_no_name_stands_for_two_things() -> None:
    names = [name for accepted in ALIASES.values() for name in accepted]
    assert len(names) == len(set(names))


FRESH_US = 15_000_000


def test_missing_stale_and_unheard_are_told_apart() -> None:
    heard = Readings(values={Meaning.RUNNING: 2.0}, at_us=1_000_000)
    assert heard.read(Meaning.RUNNING, 2_000_000, FRESH_US) == Reading(value=2.0, state=State.FRESH)
    old = heard.read(Meaning.RUNNING, 60_000_000, FRESH_US)
    assert (old.value, old.state) == (2.0, State.STALE)
    assert heard.read(Meaning.WAITING, 2_000_000, FRESH_US).state is State.MISSING
    assert Readings().read(Meaning.WAITING, 2_000_000, FRESH_US).state is State.UNHEARD


def test_a_sum_is_as_good_as_its_worst_part() -> None:
    known = Reading(value=2.0, state=State.FRESH)
    assert merged([known, known]) == Reading(value=4.0, state=State.FRESH)
    old = Reading(value=1.0, state=State.STALE)
    assert merged([known, old]) == Reading(value=3.0, state=State.STALE)
    silent = Reading(value=None, state=State.UNHEARD)
    assert merged([known, silent]) == Reading(value=2.0, state=State.UNHEARD)
    assert merged([silent]).value is None
