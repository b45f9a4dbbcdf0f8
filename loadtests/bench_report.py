"""What the rounds say: medians, ratios, targets, and the page that is written of them. Pure.

In: rounds by kind and subject, facts about the machine. Out: one document and its Markdown.
Ratios are pairwise: our CPU ÷ a peer's in the same round, then the median over rounds.
"""

from collections.abc import Mapping
from statistics import median
from typing import Literal, NamedTuple, get_args

import msgspec

OURS = "warmtide"
Kind = Literal["chat", "stream"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Round(NamedTuple):
    """What one round cost: CPU a request, requests a second, 99th percentile of latency."""

    cpu_us: float
    per_s: float
    p99_ms: float


class Measured(NamedTuple):
    """Rounds by kind, subject and number; and who could not be measured to the end, and why."""

    rounds: Mapping[Kind, Mapping[str, Mapping[int, Round]]]
    fell_out: Mapping[str, str]


class Target(NamedTuple):
    """Our CPU a request is to be at most `ratio` times the peer's."""

    kind: Kind
    peer: str
    ratio: float


TARGETS = (
    Target("chat", "vllm-router", 0.80),
    Target("stream", "vllm-router", 1.0),
    Target("chat", "litellm", 0.01),
    Target("stream", "litellm", 0.01),
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Under what conditions."""

    cores: int
    cpu: str
    python: str
    load_average: float
    rounds: int
    connections: int
    requests: dict[str, dict[Kind, int]]
    """By subject and kind, of one round."""
    versions: dict[str, str]
    rss_mb: dict[str, int]
    quick: bool


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A subject's figures of one kind: medians over its rounds."""

    subject: str
    rounds: int
    cpu_us: float
    cpu_us_min: float
    cpu_us_max: float
    per_s: float
    p99_ms: float
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    peer: str
    target: float
    ratio: float | None

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= self.target


class Report(msgspec.Struct, frozen=True, kw_only=True):
    facts: Facts
    rows: dict[Kind, list[Row]]
    verdicts: list[Verdict]
    not_measured: dict[str, str]


def report_of(measured: Measured, facts: Facts) -> Report:
    """A subject that fell out has no row: half a run would be compared with whole ones."""
    rows = {
        kind: [
            _row(name, rounds, by_name.get(OURS, {}))
            for name, rounds in by_name.items()
            if rounds and name not in measured.fell_out
        ]
        for kind, by_name in measured.rounds.items()
    }
    ratios = {(kind, row.subject): row.ratio for kind in rows for row in rows[kind]}
    verdicts = [
        Verdict(
            kind=target.kind,
            peer=target.peer,
            target=target.ratio,
            ratio=ratios.get((target.kind, target.peer)),
        )
        for target in TARGETS
    ]
    return Report(facts=facts, rows=rows, verdicts=verdicts, not_measured=dict(measured.fell_out))


def _row(name: str, rounds: Mapping[int, Round], ours: Mapping[int, Round]) -> Row:
    cpu = [each.cpu_us for each in rounds.values()]
    both = sorted(set(rounds) & set(ours)) if name != OURS else []
    ratios = [ours[number].cpu_us / rounds[number].cpu_us for number in both]
    return Row(
        subject=name,
        rounds=len(rounds),
        cpu_us=median(cpu),
        cpu_us_min=min(cpu),
        cpu_us_max=max(cpu),
        per_s=median(each.per_s for each in rounds.values()),
        p99_ms=median(each.p99_ms for each in rounds.values()),
        ratio=median(ratios) if ratios else None,
        ratio_min=min(ratios, default=None),
        ratio_max=max(ratios, default=None),
    )


# --- the page


def markdown(report: Report) -> str:
    parts = [_opening(report.facts)]
    parts += [_table(kind, rows, report.facts) for kind, rows in report.rows.items()]
    parts.append(_targets(report.verdicts))
    if report.not_measured:
        lines = [f"- {name}: {why}" for name, why in report.not_measured.items()]
        parts.append("\n".join(["## Not measured", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _opening(facts: Facts) -> str:
    slow = [name for name in facts.requests if facts.requests[name] != facts.requests[OURS]]
    fewer = [
        f"{name} is far slower and got {facts.requests[name]['chat']} and "
        f"{facts.requests[name]['stream']} in fewer rounds; its p99 is of few requests."
        for name in slow
    ]
    ours = facts.requests[OURS]
    quick = (
        ["**A quick run, to see that it runs: these are no figures.**", ""] if facts.quick else []
    )
    return "\n".join(
        [
            "# What the gateway costs per request",
            "",
            *quick,
            "Written by `make bench`. Every subject stood before the same mock engine that answers",
            "at once, pinned to one core; load (closed loop, "
            f"{facts.connections} kept connections, the same request",
            "for all) and engine shared another. CPU is user + system time of the subject's "
            "process",
            "tree ÷ requests served. Whoever fails a request falls out and is named below.",
            "",
            f"{facts.rounds} interleaved rounds, every other in reverse order, after one to warm "
            f"up; {ours['chat']} chats and",
            f"{ours['stream']} streams each. {' '.join(fewer)}".rstrip(),
            "Medians; ratios are taken within each round. One noisy machine: compare the ratios,",
            "not the figures.",
            "",
            "Warmtide checked an API key, routed one of 40 models and kept its telemetry; LiteLLM",
            "checked a key and routed one of 40; vllm-router and smg knew one worker and no key.",
            "Streams are 16 chunks without pauses, each its own write: the worst case for a relay.",
            "",
            f"{facts.cores} cores ({facts.cpu}), Python {facts.python}, load average "
            f"{facts.load_average:.1f} at the start.",
        ]
    )


def _table(kind: Kind, rows: list[Row], facts: Facts) -> str:
    lines = [
        f"## {kind}",
        "",
        "| gateway | rounds | CPU µs/request | min–max | requests/s | p99 ms | RSS MB "
        "| our CPU ÷ its | min–max |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row.subject} {facts.versions[row.subject]}"
        cpu = f"{row.cpu_us:.0f} | {row.cpu_us_min:.0f}–{row.cpu_us_max:.0f}"
        lines.append(
            f"| {name} | {row.rounds} | {cpu} "
            f"| {row.per_s:.0f} | {row.p99_ms:.1f} | {facts.rss_mb.get(row.subject, '')} "
            f"| {_ratio(row.ratio)} | {_span(row.ratio_min, row.ratio_max)} |"
        )
    return "\n".join(lines)


def _targets(verdicts: list[Verdict]) -> str:
    said = {True: "met", False: "**missed**", None: "not measured"}
    lines = [
        "## Targets",
        "",
        "| our CPU per request | at most | found | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.kind} ÷ {each.peer} | {each.target:g} | {_ratio(each.ratio)} | {said[each.met]} |"
        for each in verdicts
    ]
    return "\n".join(lines)


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_ratio(low)}–{_ratio(high)}"
