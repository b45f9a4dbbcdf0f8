"""What can be switched on and off in WarmServe: its ablations (4.10), its quirks (4.11). Pure.

In: nothing. Out: `Flags`; the defaults are the system as it was released. Never: decides.
"""

from dataclasses import dataclass

US = 1_000_000
BATCH = 32
"""B: requests that one instance is taken to hold at once, whatever their length."""
PASS_US = US // 2
"""The prewarm pass and the autoscaler run this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The defaults are the released system, quirks and all."""

    window_us: int = 300 * US
    prewarm: bool = True
    """Weights are loaded ahead of demand, by forecast (4.1 to 4.4)."""
    by_score: bool = True
    """Placement respects scores and nesting (4.3); else round robin, and misses take the first
    free GPUs."""
    release_kv: bool = True
    """A draining instance gives KV pages away (4.8)."""
    lazy_kv: bool = True
    """A launch maps the KV cache while it serves; else wholly before its first step (4.9)."""
    keep_weights: bool = True
    """A drained instance's weights stay on its GPUs; else every launch loads them anew, which is an
    autoscaler whose workers and engine processes are warm and whose models are not."""
    own_gateway: bool = True
    """Requests create instances and ask again every second (4.5); else our gateway holds them in
    order of arrival and wakes them at readiness."""
    running_counts_twice: bool = True
    """4.11, 1: a running instance's replica stays in the list of resident ones."""
    dropped_stays_booked: bool = True
    """4.11, 2: what a dropped replica held beside the launch stays deducted."""
    small_kv_of_7b: bool = True
    """4.11, 3: Llama-2-7B's KV cache is configured with Llama-3-8B's size per token."""
    silence_before_first_sample: bool = True
    """4.11, 4: the mean over five seconds takes the time before the first sample as zero load."""


AS_RELEASED = Flags()
NO_PREWARM = Flags(prewarm=False, release_kv=False, lazy_kv=False)
"""The published switch implies the one below."""
NO_PLACEMENT = Flags(by_score=False)
NO_PROACTIVE = Flags(release_kv=False, lazy_kv=False)
"""The published switch mixes two effects; the next two tell them apart."""
NO_RELEASE = Flags(release_kv=False)
NO_LAZY_KV = Flags(lazy_kv=False)
NO_UNIFIED_MEMORY = Flags(prewarm=False, release_kv=False, lazy_kv=False, keep_weights=False)
WITH_GATEWAY = Flags(own_gateway=False)
FIXED = Flags(
    own_gateway=False,
    running_counts_twice=False,
    dropped_stays_booked=False,
    small_kv_of_7b=False,
    silence_before_first_sample=False,
)
SHORT_WINDOWS = Flags(window_us=180 * US)
LONG_WINDOWS = Flags(window_us=2_400 * US)
