"""How much a cluster can serve, so that demand can be thinned to a share of it. Pure.

In: a model, a GPU type, mean lengths of its requests. Out: GPU-seconds one request costs.
Never: counts what cold starts, packing and bursts take: a load of 1 is out of reach of any policy.

**The reckoning.** A replica is taken to run at a sensible batch: as many requests as `BATCH_LOAD`
of its slots, fewer where its KV cache does not hold them or where a decode step would break the
model's ITL objective. One request then costs its replica the prefill of its prompt, and its share
of each decode step: `gpus · (prefill + output · step(batch) ÷ batch)`. Where service times are
fixed (`spec.service`) requests do not slow each other and only slots are scarce: it costs
`gpus · (prefill + output · step) ÷ batch`. Load is GPU-seconds asked per second, over the GPUs.
"""

from placement.catalog import ModelSpec
from placement.service_time import Timing, kv_tokens, timing_of

BATCH_LOAD = 0.8
"""The share of its slots at which policies here scale out."""
US = 1_000_000


def gpu_seconds(spec: ModelSpec, gpu_type: str, prompt: float, output: float) -> float:
    """What one request of these mean lengths costs, in seconds of one GPU."""
    timing = timing_of(spec, gpu_type)
    context = int(prompt + output / 2)
    batch = sensible_batch(spec, timing, context)
    step_us = timing.step_us(batch, batch * context)
    prefill_us = timing.prefill_us(round(prompt))
    if spec.service is not None:
        return spec.gpus * (prefill_us + output * step_us) / batch / US
    return spec.gpus * (prefill_us + output * step_us / batch) / US


def sensible_batch(spec: ModelSpec, timing: Timing, context_tokens: int) -> int:
    """Requests side by side that slots, KV cache and the ITL objective allow; at least one."""
    most = int(BATCH_LOAD * spec.max_num_seqs)
    batch = min(most, kv_tokens(spec) // max(context_tokens, 1))
    while batch > 1 and timing.step_us(batch, batch * context_tokens) > spec.itl_slo_us:
        batch -= 1
    return max(batch, 1)
