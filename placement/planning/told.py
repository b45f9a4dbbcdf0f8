"""Reasons in plain words: one sentence for a code and the numbers behind it. Pure.

In: `Reason`s, as policies write them. Out: text for people, with units. Never: hides a number:
those that no phrase knows stand at the end as `key = value`, their unit read off the key.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from placement.catalog_units import human_bytes, human_time
from placement.plan import Reason, ReasonCode

US = 1_000_000

_SAID: dict[ReasonCode, str] = {
    ReasonCode.HELD_REQUESTS: "requests wait and no replica serves them",
    ReasonCode.SATURATED: "more is asked than its replicas take",
    ReasonCode.MIN_REPLICAS: "its model has fewer replicas than its minimum",
    ReasonCode.MAKE_ROOM: "it gives its room away",
    ReasonCode.IDLE: "nothing has been asked of it for long",
    ReasonCode.EXCESS: "its model has more replicas than it needs",
    ReasonCode.DEMAND_RETURNED: "it is asked for again before its drain has ended",
    ReasonCode.REMOVED_FROM_CATALOG: "its model left the catalog",
    ReasonCode.FAILED_REPLICA: "its engine failed",
    ReasonCode.OPERATOR: "an operator wants it",
    ReasonCode.FORECAST: "expected demand is worth more than what it takes",
    ReasonCode.PREWARM: "it may be needed soon",
    ReasonCode.STALE_PREWARM: "something else is worth more in its place",
    ReasonCode.RESIDENCY: "the residency plan wants it so",
}


_MONEY = {ReasonCode.RESIDENCY: "request-seconds of waiting"}
"""What values without a unit in their name are counted in; elsewhere in GPU-seconds."""


class _Numbers:
    """Those that no phrase has used yet."""

    def __init__(self, numbers: Mapping[str, float], money: str = "GPU-seconds") -> None:
        self.left = dict(numbers)
        self._money = money

    def has(self, *keys: str) -> bool:
        return all(key in self.left for key in keys)

    def take(self, key: str) -> float:
        return self.left.pop(key)

    def plain(self, key: str) -> str:
        return number(self.take(key))

    def seconds(self, key: str) -> str:
        return seconds(self.take(key))

    def worth(self, key: str) -> str:
        money = "GPU-seconds" if key.endswith("_gpu_s") else self._money
        return f"{self.plain(key)} {money}"


_Phrase: TypeAlias = Callable[[_Numbers], str]
"""A clause, or nothing where its numbers are missing."""


def told(reason: Reason, futures: int = 0) -> str:
    """One sentence. `futures`: how many joint paths a probability was counted over."""
    numbers = _Numbers(reason.numbers, _MONEY.get(reason.code, "GPU-seconds"))
    if futures and "paths" not in numbers.left and "probability" in numbers.left:
        numbers.left["paths"] = float(futures)
    said = _SAID[reason.code]
    if reason.for_model:
        said += f", for {reason.for_model}"
    return f"{words(reason.code)}: {'; '.join([said, *_clauses(numbers)])}"


def told_numbers(numbers: Mapping[str, float]) -> str:
    """Numbers without a code, as those of a want: only the residency plan gives any."""
    return "; ".join(_clauses(_Numbers(numbers, _MONEY[ReasonCode.RESIDENCY])))


def words(code: str) -> str:
    return code.replace("_", " ")


def _clauses(numbers: _Numbers) -> list[str]:
    found = [clause for phrase in _PHRASES if (clause := phrase(numbers))]
    return found + [_unknown(key, value) for key, value in numbers.left.items()]


# --- phrases, in the order in which they are said


def _waiting(n: _Numbers) -> str:
    said = [f"{n.plain(key)} {word}" for key, word in _COUNTED if n.has(key)]
    return f"requests: {', '.join(said)}" if said else ""


_COUNTED = (
    ("held", "held"),
    ("in_flight", "running"),
    ("asked", "held or running"),
    ("waiting", "expected to find no slot"),
)


def _replicas(n: _Numbers) -> str:
    said = [f"{n.plain(key)} {word}" for key, word in _REPLICAS if n.has(key)]
    return f"replicas: {', '.join(said)}" if said else ""


_REPLICAS = (
    ("wanted", "wanted"),
    ("coming", "there or coming"),
    ("serving", "serving"),
    ("min_replicas", "at least"),
    ("slots", "slots"),
    ("replica", "is its place among them"),
)


def _needed(n: _Numbers) -> str:
    if not n.has("probability"):
        return ""
    within = f" within {n.seconds('horizon_s')}" if n.has("horizon_s") else ""
    futures = f"{n.plain('paths')} futures" if n.has("paths") else "the futures"
    return f"needed{within} in {number(100 * n.take('probability'))} % of {futures}"


def _expected(n: _Numbers) -> str:
    return f"{n.plain('rate_per_s')} requests a second expected" if n.has("rate_per_s") else ""


def _saved(n: _Numbers) -> str:
    if not n.has("saved_s"):
        return f"{n.plain('waiters')} requests would wait" if n.has("waiters") else ""
    saves = f"saves {n.seconds('saved_s')}"
    return f"{saves} for {n.plain('waiters')} requests" if n.has("waiters") else saves


def _climbs(n: _Numbers) -> str:
    said = [f"a {word} takes {n.seconds(key)}" for key, word in _TIMES if n.has(key)]
    if n.has("waited_s"):
        said.insert(0, f"waited {n.seconds('waited_s')}")
    return ", ".join(said)


_TIMES = (("climb_s", "climb"), ("start_s", "start"), ("lead_s", "launch"))


def _worth(n: _Numbers) -> str:
    said = [n.worth(key) for key in ("value_gpu_s", "value", "gain") if n.has(key)]
    said += [f"{n.plain('gain_gpus')} idle GPUs"] if n.has("gain_gpus") else []
    if n.has("for_value"):
        said.append(f"{n.worth('for_value')} in its place")
    return f"worth {', '.join(said)}" if said else ""


def _costs(n: _Numbers) -> str:
    said = [n.worth(key) for key in ("cost_gpu_s", "start_cost") if n.has(key)]
    return f"costs {', '.join(said)}" if said else ""


def _loses(n: _Numbers) -> str:
    for key in ("loss_gpu_s", "loss", "beside"):
        if n.has(key):
            return f"others may lose {n.worth(key)}"
    return f"costs others {n.seconds('loss_s')} of waiting" if n.has("loss_s") else ""


def _nodes(n: _Numbers) -> str:
    said = [f"{n.plain('gpus_there')} there or coming"] if n.has("gpus_there") else []
    if n.has("gpus_needed"):
        share = f" in {number(100 * n.take('quantile'))} % of futures" if n.has("quantile") else ""
        said.append(f"at most {n.plain('gpus_needed')} needed{share}")
    said += [f"{n.plain(key)} {word}" for key, word in _OF_NODES if n.has(key)]
    return f"GPUs: {', '.join(said)}" if said else ""


_OF_NODES = (
    ("between_sets", "idle between sets"),
    ("used", "of its own in use in the mean"),
    ("worth_gpus", "is what it is worth"),
    ("costs_gpus", "is what it costs"),
    ("waiting_gpus", "waited for"),
)


def _moves(n: _Numbers) -> str:
    said = [f"{n.seconds(key)} of the {word}" for key, word in _LINKS if n.has(key)]
    if n.has("bytes"):
        said.insert(0, f"moves {human_bytes(n.take('bytes'))}")
    return ", ".join(said)


_LINKS = (
    ("link_s", "link"),
    ("h2d_s", "PCIe link to the GPU"),
    ("d2h_s", "PCIe link to the host"),
    ("loader_s", "weights loader"),
    ("disk_s", "disk"),
)

_PHRASES: tuple[_Phrase, ...] = (
    _waiting, _replicas, _nodes, _needed, _expected, _climbs, _saved, _worth, _costs, _loses,
    _moves,
)  # fmt: skip


# --- numbers


def _unknown(key: str, value: float) -> str:
    return f"{key} = {_with_unit(key, value)}"


def _with_unit(key: str, value: float) -> str:
    if key.endswith("_gpu_s"):
        return f"{number(value)} GPU-seconds"
    if key.endswith("_per_s"):
        return f"{number(value)} a second"
    if key.endswith("_us"):
        return seconds(value / US)
    if key.endswith(("_s", "_ms")):
        return seconds(value / (1000 if key.endswith("_ms") else 1))
    if key.endswith("bytes"):
        return human_bytes(value)
    return number(value)


def number(value: float) -> str:
    """Three digits, or all digits of a whole number."""
    whole = abs(value) < 1e15 and value == int(value)
    return str(int(value)) if whole else f"{value:.3g}"


def seconds(value: float) -> str:
    """Three digits of a time; what is shorter than a microsecond is none."""
    if not abs(value) < 1e12:
        return f"{value:g} s"
    us = round(float(f"{value:.3g}") * US)
    return f"-{human_time(-us)}" if us < 0 else human_time(us) if us else "0 s"
