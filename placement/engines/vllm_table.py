"""Which calls of a vLLM server lead from rung to rung.

In: nothing. Out: a table, the same for emulated and real servers. Never: makes a call.
"""

from placement.snapshot import Rung

_SLEEP_PAUSE = "/sleep?level=0&mode=wait"
RELEASE_KV = "/release_kv_cache_memory"
_WAKE = "/wake_up"
_WAKE_WEIGHTS = "/wake_up?tags=weights"
_WAKE_KV = "/wake_up?tags=kv_cache"
_WAKE_SCHEDULING = "/wake_up?tags=scheduling"
RELOAD = "/collective_rpc"
_RESET_PREFIX = "/reset_prefix_cache"

# `mode=wait`: the default aborts what runs. Waking from level 2 goes weights, reload, KV: with any
# other order the engine answers garbage with 200.
CALLS: dict[tuple[Rung, Rung], tuple[str, ...]] = {
    (Rung.SERVING, Rung.WARM): (_SLEEP_PAUSE, RELEASE_KV),
    (Rung.SERVING, Rung.PARKED): ("/sleep?level=1&mode=wait",),
    (Rung.SERVING, Rung.SHED): ("/sleep?level=2&mode=wait",),
    (Rung.WARM, Rung.PARKED): ("/sleep?level=1&mode=wait",),
    (Rung.WARM, Rung.SHED): ("/sleep?level=2&mode=wait",),
    (Rung.WARM, Rung.SERVING): (_WAKE_KV, _WAKE_SCHEDULING, _RESET_PREFIX),
    (Rung.PARKED, Rung.WARM): (_WAKE_WEIGHTS,),
    (Rung.PARKED, Rung.SERVING): (_WAKE,),
    (Rung.SHED, Rung.WARM): (_WAKE_WEIGHTS, RELOAD),
    (Rung.SHED, Rung.SERVING): (
        _WAKE_WEIGHTS,
        RELOAD,
        _WAKE_KV,
        _WAKE_SCHEDULING,
        _RESET_PREFIX,
    ),
}
