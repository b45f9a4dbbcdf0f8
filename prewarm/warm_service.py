"""How long a request runs on a warm replica, and how many then run at once. Pure.

In: a model, a GPU type, arrivals and mean lengths. Out: arrays of concurrency and seconds. Never:
looks at how long requests did take: that holds our own queues and cold starts, which are no demand.

**The reckoning.** In a batch of b, a request takes the prefills of b prompts, for as many arrive
while it runs, and one decode step of b sequences for each token: S(b) = b P + o (base + k c b),
with P the prefill, o the output tokens, c the mean context. By Little's law b = rate x S(b), of
which b is linear, so it has a closed form. A replica is filled as far as `BATCH_LOAD` of its slots,
its KV cache and its ITL objective allow; beyond that, more replicas run side by side at that batch.
"""

from typing import NamedTuple

import numpy as np

from placement.catalog import CPU_DEVICE, Catalog, EngineKind, ModelSpec
from placement.service_time import Timing, kv_tokens, timing_of
from prewarm.calendars import US
from prewarm.series import Floats

BATCH_LOAD = 0.8
"""The share of its slots at which a replica counts as full: where policies scale out."""
TTFT_MISSED = 0.05
"""The share of requests whose first token may be late at a full batch."""
_PS_IN_US = 1e6


class Warm(NamedTuple):
    """At a rate of arrivals, per bin: requests that run at once, and seconds that each takes."""

    concurrency: Floats
    service_s: Floats


def warm_concurrency(
    spec: ModelSpec, timing: Timing, rate_per_s: Floats, prompt: Floats, output: Floats
) -> Warm:
    """`prompt` and `output`: mean tokens of a request. NaN where the rate is."""
    prefill_s = _prefill_us(timing, prompt) / US
    base_s = output * timing.step_base_us / US
    if spec.service is not None:  # fixed figures: no request slows another
        service_s = prefill_s + base_s
        return Warm(rate_per_s * service_s, service_s)
    context = prompt + output / 2
    per_request_s = prefill_s + output * timing.step_context_token_ps * context / _PS_IN_US / US
    most = full_batch(spec, timing, context)
    room = 1 - rate_per_s * per_request_s
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.where(room > 0, rate_per_s * base_s / room, np.inf)
    batch = np.clip(alone, 1, most)
    service_s = base_s + per_request_s * batch
    return Warm(rate_per_s * service_s, service_s)


def full_batch(
    spec: ModelSpec, timing: Timing, context: Floats, load: float = BATCH_LOAD
) -> Floats:
    """Requests side by side that this share of the slots, the KV cache and the ITL objective allow;
    at least one."""
    step_us = timing.step_context_token_ps * context / _PS_IN_US
    with np.errstate(divide="ignore"):
        within_itl = np.where(
            step_us > 0, (spec.itl_slo_us - timing.step_base_us) / step_us, np.inf
        )
    most = np.minimum(load * spec.max_num_seqs, kv_tokens(spec) / np.maximum(context, 1))
    return np.maximum(np.minimum(most, within_itl), 1)


def batch_within_ttft(spec: ModelSpec, timing: Timing, prompt: Floats, output: Floats) -> Floats:
    """Requests side by side at which nearly all still get their first token within the objective.

    Prompts are prefilled one after the other, each in an iteration of D seconds, in which whoever
    runs decodes too; half of one has to end before. At a load rho of them, one waits longer than x
    with a chance of about exp(-2 x (1 - rho) / (rho D)) (M/D/1, heavy traffic), so `TTFT_MISSED`
    bounds rho, rho / D is a rate, and by the reckoning above a batch goes with it.
    """
    if spec.service is not None:  # fixed figures: no prompt waits for another
        return np.full_like(prompt, np.inf)
    each_s = (_prefill_us(timing, prompt) + timing.step_base_us) / US
    slack_s = np.maximum(spec.ttft_slo_us / US - 1.5 * each_s, 0.1 * each_s)
    load = 1 / (1 - np.log(TTFT_MISSED) * each_s / (2 * slack_s))
    found: Floats = warm_concurrency(spec, timing, load / each_s, prompt, output).concurrency
    return np.maximum(found, 1)


def _prefill_us(timing: Timing, prompt: Floats) -> Floats:
    arithmetic = timing.prefill_token_ps * prompt / _PS_IN_US
    return timing.prefill_base_us + arithmetic + timing.prefill_request_us


def timing_in(catalog: Catalog, model: str) -> tuple[ModelSpec, Timing] | None:
    """On the first kind of GPU in the fleet that could run it. None: not a model of ours to time:
    run by somebody else, or gone from the catalog."""
    spec = catalog.model(model)
    if spec is None or spec.engine is EngineKind.EXTERNAL:
        return None
    gpu_type = CPU_DEVICE
    if spec.on_gpu and not spec.on_cpu:
        fitting = (n.gpu_type for n in catalog.nodes if not n.on_cpu and n.gpus >= spec.gpus)
        found = next(fitting, None)
        if found is None:
            return None
        gpu_type = found
    return spec, timing_of(spec, gpu_type)
