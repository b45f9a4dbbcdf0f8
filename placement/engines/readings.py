"""Engines' own metrics under one name each, whoever wrote them and in which version. Pure.

In: the text of an engine's `/metrics`, the time. Out: what each name *means*, or that it is missing
or stale: both are states, and neither is zero. Names move between versions and hosts (KServe and
Ray put prefixes before them), so every one that is accepted stands in `ALIASES`, newest first.
Source: vLLM 0.32's `/metrics`, its deprecations, SGLang's and llama.cpp's documentation.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from placement.catalog import Frozen


class Meaning(StrEnum):
    """What a number of an engine stands for."""

    RUNNING = "running"
    WAITING = "waiting"
    KV_CACHE_USAGE = "kv_cache_usage"
    PREEMPTIONS = "preemptions"
    PREFIX_QUERIES = "prefix_queries"
    PREFIX_HITS = "prefix_hits"
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TTFT_SUM_S = "ttft_sum_s"
    TTFT_COUNT = "ttft_count"
    ITL_SUM_S = "itl_sum_s"
    ITL_COUNT = "itl_count"


ALIASES: dict[Meaning, tuple[str, ...]] = {
    Meaning.RUNNING: (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "llamacpp:requests_processing",
    ),
    Meaning.WAITING: (
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
    ),
    Meaning.KV_CACHE_USAGE: (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ),
    Meaning.PREEMPTIONS: ("vllm:num_preemptions",),
    Meaning.PREFIX_QUERIES: ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    Meaning.PREFIX_HITS: ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    Meaning.PROMPT_TOKENS: ("vllm:prompt_tokens", "sglang:prompt_tokens", "llamacpp:prompt_tokens"),
    Meaning.OUTPUT_TOKENS: (
        "vllm:generation_tokens",
        "sglang:generation_tokens",
        "llamacpp:tokens_predicted",
    ),
    Meaning.TTFT_SUM_S: (
        "vllm:time_to_first_token_seconds_sum",
        "sglang:time_to_first_token_seconds_sum",
    ),
    Meaning.TTFT_COUNT: (
        "vllm:time_to_first_token_seconds_count",
        "sglang:time_to_first_token_seconds_count",
    ),
    Meaning.ITL_SUM_S: (
        "vllm:inter_token_latency_seconds_sum",
        "vllm:time_per_output_token_seconds_sum",
        "sglang:inter_token_latency_seconds_sum",
    ),
    Meaning.ITL_COUNT: (
        "vllm:inter_token_latency_seconds_count",
        "vllm:time_per_output_token_seconds_count",
        "sglang:inter_token_latency_seconds_count",
    ),
}

_SHARES = {Meaning.KV_CACHE_USAGE}
"""Of several engines behind one address the fullest counts; all else adds up."""

_HOSTS = re.compile(r"^(?:kserve_|ray_)?(vllm|sglang|llamacpp)[:_]")
_LINE = re.compile(r"^(?:kserve_|ray_)?(?:vllm|sglang|llamacpp)[:_].*", re.MULTILINE)
_NAME_END = re.compile(r"[{\s]")
LINE_CHARS_MAX = 4096
LINES_CHARS_MAX = 256 * 1024
"""Of the lines that matter: sixty engines behind one address need a third of it. Parsing is slow,
and takes the square of a line's labels; a gateway busy with a page is deaf to all requests."""
VALUE_MAX = 1e15
"""What is beyond all measure, or below zero, is not taken: sums of it would not even be numbers."""
_KNOWN = {name for names in ALIASES.values() for name in names}


class State(StrEnum):
    """Whether a reading can be believed."""

    FRESH = "fresh"
    STALE = "stale"
    """The engine has not answered for a while: the value is an old one."""
    MISSING = "missing"
    """The engine answers, but not to this."""
    UNHEARD = "unheard"
    """The engine has never answered."""


_BADNESS = (State.FRESH, State.STALE, State.MISSING, State.UNHEARD)


class Reading(Frozen, frozen=True, kw_only=True):
    """One number of one engine. `value` is None where there is none, never a made-up zero."""

    value: float | None
    state: State


class Readings(Frozen, frozen=True, kw_only=True):
    """What an engine last said, when, and what is wrong since. `at_us` 0: it never answered."""

    values: dict[Meaning, float] = {}
    at_us: int = 0
    problem: str = ""

    def read(self, meaning: Meaning, now_us: int, fresh_us: int) -> Reading:
        if not self.at_us:
            return Reading(value=None, state=State.UNHEARD)
        value = self.values.get(meaning)
        if value is None:
            return Reading(value=None, state=State.MISSING)
        fresh = now_us - self.at_us <= fresh_us
        return Reading(value=value, state=State.FRESH if fresh else State.STALE)


class UnreadableError(ValueError):
    """The text is not in Prometheus' format; says where."""


def read_metrics(text: str, model_name: str = "") -> dict[Meaning, float]:
    """The known meanings in a `/metrics` text. Raises `UnreadableError`.

    Where samples are labelled with models and one is `model_name`, the others' are left out.
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in _samples(text):
        by_name.setdefault(_plain(sample.name), []).append(sample)
    found: dict[Meaning, float] = {}
    for meaning, names in ALIASES.items():
        name = next((n for n in names if n in by_name), None)
        if name is not None:
            values = [s.value for s in _of_model(by_name[name], model_name)]
            total = float(max(values) if meaning in _SHARES else sum(values))
            if 0 <= total <= VALUE_MAX:
                found[meaning] = total
    return found


def _samples(text: str) -> Iterable[Sample]:
    """Only the lines that matter are parsed: an engine's page has hundreds of others."""
    found = (line[0] for line in _LINE.finditer(text))
    lines = [line for line in found if _plain(_name_of(line)) in _KNOWN]
    if sum(map(len, lines)) > LINES_CHARS_MAX or max(map(len, lines), default=0) > LINE_CHARS_MAX:
        raise UnreadableError(
            f"these are too many metrics: over {LINES_CHARS_MAX} characters in lines that are read "
            f"here, or over {LINE_CHARS_MAX} in one of them"
        )
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            yield from family.samples
    except (ValueError, IndexError, KeyError) as error:
        raise UnreadableError(f"these are no Prometheus metrics: {error}") from None


def _name_of(line: str) -> str:
    return _NAME_END.split(line, maxsplit=1)[0]


def _plain(name: str) -> str:
    """A name without what its host put before it, nor what marks a counter behind it."""
    return _HOSTS.sub(r"\1:", name).removesuffix("_total")


def _of_model(samples: list[Sample], model_name: str) -> list[Sample]:
    own = [s for s in samples if s.labels.get("model_name") == model_name]
    return own or samples


def merged(readings: Sequence[Reading]) -> Reading:
    """The sum over a model's replicas of what is known, as good as the worst of them."""
    values = [r.value for r in readings if r.value is not None]
    worst = max((r.state for r in readings), key=_BADNESS.index)
    return Reading(value=sum(values) if values else None, state=worst)
