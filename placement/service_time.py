"""How long prefill and decode take, and how many tokens a replica's KV cache holds.

In: a `ModelSpec` and a GPU type, or the model's own fixed figures. Out: `Timing`, whose methods
answer in integer microseconds of trace time. Never: reads a clock, draws, knows an engine.

Prefill is bound by arithmetic, decoding by reading weights and KV cache. An iteration that does
both takes the longer of the two bases, plus the arithmetic of its prompt tokens.
"""

from math import isqrt

from placement.catalog import Frozen, ModelSpec
from placement.constants import GPU_TYPES, GpuType

PS = 10**12
PS_IN_US = 10**6

# Grade D/M, fitted beside the formulas: 10 ms a prefill, 3 ms a step at TP1, 6 to 10 ms at TP4.
_PREFILL_BASE_US = 10_000
_STEP_OVERHEAD_US = 3_000
_STEP_OVERHEAD_PER_EXTRA_GPU_US = 1_500
_STEP_OVERHEAD_MAX_US = 10_000
_HBM_EFFICIENCY = 0.8
_BYTES_PER_PARAMETER = 2


class Timing(Frozen, frozen=True, kw_only=True):
    """Coefficients of one model on one GPU type; picoseconds where microseconds would round."""

    prefill_base_us: int
    prefill_token_ps: int
    prefill_request_us: int
    """Charged once a prompt, however long; the fixed figures of published set-ups."""
    step_base_us: int
    step_context_token_ps: int
    """Per token of context that a decode step reads."""

    def prefill_us(self, tokens: int, prompts: int = 1) -> int:
        """A prompt (or several ending in one iteration) on an otherwise idle replica."""
        return self.iteration_us(tokens, prompts, 0, 0)

    def step_us(self, sequences: int, context_tokens: int) -> int:
        """One decode step of `sequences` that hold `context_tokens` together."""
        return self.run_us(1, sequences, context_tokens)

    def run_us(self, steps: int, sequences: int, context_tokens: int) -> int:
        """`steps` decode steps in a row; each adds one token of context per sequence.

        Grows strictly with `steps`; `steps_within` is its inverse.
        """
        read = steps * context_tokens + sequences * (steps * (steps - 1) // 2)
        return steps * self.step_base_us + self.step_context_token_ps * read // PS_IN_US

    def steps_within(self, run_us: int, sequences: int, context_tokens: int) -> int:
        """The most steps that `run_us` lets end by then.

        That is, the largest s with 2 · PS_IN_US · run_us(s) < 2 · PS_IN_US · (run_us + 1), and the
        left side is a quadratic in s. In whole numbers, so that no step is ever off by rounding.
        """
        square = self.step_context_token_ps * sequences
        linear = 2 * PS_IN_US * self.step_base_us
        linear += self.step_context_token_ps * (2 * context_tokens - sequences)
        bound = 2 * PS_IN_US * (run_us + 1) - 1
        if not square:
            return bound // linear
        return (isqrt(linear * linear + 4 * square * bound) - linear) // (2 * square)

    def iteration_us(
        self, prefill_tokens: int, prompts_ended: int, sequences: int, context_tokens: int
    ) -> int:
        """One iteration of chunked prefill beside decoding sequences."""
        base = self.prefill_base_us if prefill_tokens else 0
        if sequences:
            base = max(base, self.step_us(sequences, context_tokens))
        arithmetic = self.prefill_token_ps * prefill_tokens // PS_IN_US
        return max(base + arithmetic + self.prefill_request_us * prompts_ended, 1)


def timing_of(spec: ModelSpec, gpu_type: str) -> Timing:
    """Fixed figures if the catalog gives them, else the roofline of the GPU type.

    Fixed figures hold whatever else runs: `emulated_fixed` lets no request slow another.
    """
    if spec.service is not None:
        return Timing(
            prefill_base_us=0,
            prefill_token_ps=0,
            prefill_request_us=spec.service.prefill_us,
            step_base_us=max(spec.service.decode_step_us, 1),
            step_context_token_ps=0,
        )
    return _roofline(spec, _gpu(gpu_type))


def kv_tokens(spec: ModelSpec) -> int:
    """Tokens the KV cache holds: heads are sharded over the GPUs, so every GPU adds room.

    A model without KV figures is bounded by its sequences alone.
    """
    if not spec.kv_bytes_per_token or not spec.kv_cache_bytes:
        return spec.max_num_seqs * spec.max_model_len
    return spec.kv_cache_bytes * spec.gpus // spec.kv_bytes_per_token


def longest_tokens(spec: ModelSpec) -> int:
    """The longest sequence a replica takes: the model's length, or its KV cache if smaller."""
    return min(spec.max_model_len, kv_tokens(spec))


def _gpu(gpu_type: str) -> GpuType:
    found = GPU_TYPES.get(gpu_type)
    if found is None:
        known = ", ".join(sorted(GPU_TYPES))
        raise ValueError(f"GPU type {gpu_type!r} has no constants; known are {known}")
    return found


def _roofline(spec: ModelSpec, gpu: GpuType) -> Timing:
    parameters = spec.parameters or spec.weights_bytes // _BYTES_PER_PARAMETER
    flops = spec.gpus * gpu.peak_flops * gpu.prefill_mfu
    read_bytes_per_s = _HBM_EFFICIENCY * gpu.hbm_bytes_per_s
    overhead_us = min(
        _STEP_OVERHEAD_US + _STEP_OVERHEAD_PER_EXTRA_GPU_US * (spec.gpus - 1),
        _STEP_OVERHEAD_MAX_US,
    )
    weights_us = spec.weights_per_gpu_bytes / read_bytes_per_s * PS / PS_IN_US
    return Timing(
        prefill_base_us=_PREFILL_BASE_US,
        prefill_token_ps=int(2 * parameters / flops * PS),
        prefill_request_us=0,
        step_base_us=overhead_us + int(weights_us),
        step_context_token_ps=int(spec.kv_bytes_per_token / spec.gpus / read_bytes_per_s * PS),
    )
