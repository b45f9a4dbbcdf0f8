"""`GET /metrics` of an emulated replica, with vLLM's names, in Prometheus text.

In: observations in microseconds of trace time, and the replica's state. Out: text. Never: awaits,
reads a clock. A writer of its own: a registry per replica would cost more than the replica.
"""

from array import array
from bisect import bisect_left

from placement.engines.emulated_batch import BLOCK_TOKENS
from placement.engines.emulated_replica import EmulatedReplica

US = 1_000_000
# fmt: off
_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
           10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
_ITL_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
          20.0, 40.0, 80.0)
_REQUEST_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
              120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)
# fmt: on
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "time_to_first_token_seconds": ("Time to first token.", _TTFT_S),
    "inter_token_latency_seconds": ("Gap between tokens.", _ITL_S),
    "request_time_per_output_token_seconds": ("Mean gap between a request's tokens.", _ITL_S),
    "e2e_request_latency_seconds": ("From arrival to last token.", _REQUEST_S),
    "request_queue_time_seconds": ("In the waiting queue.", _REQUEST_S),
    "request_prefill_time_seconds": ("From admission to first token.", _REQUEST_S),
    "request_decode_time_seconds": ("From first to last token.", _REQUEST_S),
    "request_inference_time_seconds": ("From admission to last token.", _REQUEST_S),
}
_REASONS = ("stop", "length", "abort", "error")


class Histogram:
    """Counts by upper bound, sum and total."""

    __slots__ = ("_bounds", "_counts", "count", "sum_us")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds = bounds_s
        self._counts = array("q", bytes(8 * (len(bounds_s) + 1)))
        self.count = 0
        self.sum_us = 0

    def observe(self, value_us: int, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value_us / US)] += times
        self.count += times
        self.sum_us += value_us * times

    def lines(self, name: str, labels: str) -> list[str]:
        found, below = [], 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            found.append(f'{name}_bucket{{{labels},le="{bound}"}} {below}')
        found.append(f'{name}_bucket{{{labels},le="+Inf"}} {self.count}')
        found.append(f"{name}_sum{{{labels}}} {self.sum_us / US}")
        found.append(f"{name}_count{{{labels}}} {self.count}")
        return found


class EngineMetrics:
    """What a replica counted since it started."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = dict.fromkeys(_REASONS, 0)
        self._histograms: dict[str, Histogram] = {}

    def observe(self, name: str, value_us: int, times: int = 1) -> None:
        found = self._histograms.get(name)
        if found is None:
            found = self._histograms[name] = Histogram(_HISTOGRAMS[name][1])
        found.observe(value_us, times)

    def ended(
        self, arrived_us: int, admitted_us: int, first_us: int, last_us: int, tokens: int
    ) -> None:
        """One request's phases, once it has its last token."""
        self.observe("e2e_request_latency_seconds", last_us - arrived_us)
        self.observe("request_queue_time_seconds", admitted_us - arrived_us)
        self.observe("request_prefill_time_seconds", first_us - admitted_us)
        self.observe("request_decode_time_seconds", last_us - first_us)
        self.observe("request_inference_time_seconds", last_us - admitted_us)
        if tokens > 1:
            gap_us = (last_us - first_us) // (tokens - 1)
            self.observe("request_time_per_output_token_seconds", gap_us)

    def render(self, replica: EmulatedReplica, now_us: int) -> str:
        labels = f'engine="0",model_name="{replica.spec.id}"'
        lines = _gauges(replica, labels, now_us)
        lines += self._counters(replica, labels)
        for name, (told, bounds) in _HISTOGRAMS.items():
            found = self._histograms.get(name) or Histogram(bounds)
            lines += _head(f"vllm:{name}", "histogram", told)
            lines += found.lines(f"vllm:{name}", labels)
        return "\n".join(lines) + "\n"

    def _counters(self, replica: EmulatedReplica, labels: str) -> list[str]:
        batch = replica.batch
        plain = {
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.generation_tokens,
            "num_preemptions": batch.preemptions,
            "prefix_cache_queries": batch.prefix_queries,
            "prefix_cache_hits": batch.prefix_hits,
        }
        lines = []
        for name, value in plain.items():
            lines += _head(f"vllm:{name}_total", "counter", name.replace("_", " "))
            lines.append(f"vllm:{name}_total{{{labels}}} {value}")
        lines += _head("vllm:request_success_total", "counter", "requests that ended")
        for reason, count in self.finished.items():
            labelled = f'{labels},finished_reason="{reason}"'
            lines.append(f"vllm:request_success_total{{{labelled}}} {count}")
        return lines


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]


def _gauges(replica: EmulatedReplica, labels: str, now_us: int) -> list[str]:
    batch, spec = replica.batch, replica.spec
    capacity = 0 if batch.paused else batch.waiting
    rows = [
        ("num_requests_running", labels, batch.running),
        ("num_requests_waiting", labels, batch.waiting),
        ("num_requests_waiting_by_reason", f'{labels},reason="capacity"', capacity),
        ("num_requests_waiting_by_reason", f'{labels},reason="deferred"', batch.waiting - capacity),
        ("kv_cache_usage_perc", labels, round(batch.kv_usage, 6)),
    ]
    for state in ("awake", "weights_offloaded", "discard_all"):
        echoed = int(replica.sleep_echo == state)
        rows.append(("engine_sleep_state", f'{labels},sleep_state="{state}"', echoed))
    cache = f'{labels},block_size="{BLOCK_TOKENS}",num_gpu_blocks="{batch.kv_tokens // 16}"'
    rows.append(("cache_config_info", f'{cache},enable_prefix_caching="True"', 1))
    loras = ",".join(sorted(replica.loras))
    told = f'{labels},max_lora="{max(len(spec.adapters), 1)}"'
    told += f',running_lora_adapters="{loras}",waiting_lora_adapters=""'
    rows.append(("lora_requests_info", told, round(now_us / US, 3)))
    lines, seen = [], ""
    for name, labelled, value in rows:
        if name != seen:
            lines += _head(f"vllm:{name}", "gauge", name.replace("_", " "))
        seen = name
        lines.append(f"vllm:{name}{{{labelled}}} {value}")
    return lines
