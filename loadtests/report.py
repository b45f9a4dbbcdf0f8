"""Answers to one document of numbers. Pure.

In: what was replayed, and an `Answer` per request. Out: a JSON-ready document in trace time.
Never: sends, averages over sets that were not asked for, hides a lost request.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from loadtests.answers import Answer, Outcome

MS_PER_US = 1e-3
Document = dict[str, Any]


class About(NamedTuple):
    """What was replayed, where, and under which label."""

    trace: str
    source: str
    evidence: dict[str, str | None]
    time_scale: float
    seed: int
    url: str
    start_s: float
    duration_s: float
    held: int
    arrivals: str
    lengths: str
    streams: dict[str, str]
    notes: tuple[str, ...] = ()


def summarise(
    about: About, models: Sequence[str], of_request: Sequence[int], answers: Sequence[Answer]
) -> Document:
    """One document: `sent` is the sum of the five outcomes, over all models and in each."""
    assert len(of_request) == len(answers), "one answer per request"
    by_model: dict[str, list[Answer]] = {model: [] for model in models}
    for place, answer in zip(of_request, answers, strict=True):
        by_model[models[place]].append(answer)
    late_ms = [answer.late_us * about.time_scale * MS_PER_US for answer in answers]
    return {
        "trace": about.trace,
        "source": about.source,
        "evidence": _joint_evidence(about),
        "world": "S",
        "time_scale": about.time_scale,
        "seed": about.seed,
        "url": about.url,
        "slice": {
            "start_s": about.start_s,
            "duration_s": about.duration_s,
            "requests": about.held,
        },
        "arrivals": about.arrivals,
        "lengths": about.lengths,
        "notes": list(about.notes),
        **_figures(answers, about.time_scale),
        "client_late_ms": _percentiles(late_ms, 50, 99),
        "streams": about.streams,
        "models": {
            model: {"evidence": about.evidence.get(model), **_figures(of_model, about.time_scale)}
            for model, of_model in by_model.items()
        },
    }


def _joint_evidence(about: About) -> str | None:
    """One label for all: the weakest of the models'; none where an engine's kind is unknown."""
    kinds = set(about.evidence.values())
    if None in kinds or not kinds:
        return None
    return "emulated" if "emulated" in kinds else sorted(str(kind) for kind in kinds)[0]


def _figures(answers: Sequence[Answer], scale: float) -> Document:
    """Outcomes, latencies and waits of a set of requests, in trace milliseconds."""
    counts = Counter(answer.outcome for answer in answers)
    held = [answer.held_ms for answer in answers if answer.held_ms > 0]
    colds = Counter(a.rung for a in answers if a.rung not in ("", "serving"))
    ttft = [a.ttft_us * scale * MS_PER_US for a in answers if a.ttft_us is not None]
    itl = [a.itl_us * scale * MS_PER_US for a in answers if a.itl_us is not None]
    return {
        "sent": len(answers),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        "refused_by_code": _codes(answers, Outcome.REFUSED),
        "cut_by_code": _codes(answers, Outcome.CUT),
        "lost_by_code": _codes(answers, Outcome.LOST),
        "output_tokens": sum(answer.tokens for answer in answers),
        "ttft_ms": _percentiles(ttft, 50, 95, 99),
        "itl_ms": _percentiles(itl, 50, 95, 99),
        "cold_starts": sum(colds.values()),
        "cold_starts_by_rung": dict(sorted(colds.items())),
        "held": len(held),
        "held_ms": {
            "mean": round(float(np.mean(held)), 3) if held else None,
            "max": round(max(held), 3) if held else None,
        },
    }


def _codes(answers: Sequence[Answer], outcome: Outcome) -> dict[str, int]:
    return dict(sorted(Counter(a.code for a in answers if a.outcome is outcome).items()))


def _percentiles(values: Sequence[float], *points: int) -> dict[str, float | None]:
    """Percentiles by linear interpolation; of an empty set, none."""
    if not values:
        return {f"p{point}": None for point in points}
    found = np.percentile(np.array(values), points)
    return {f"p{p}": round(float(v), 3) for p, v in zip(points, found, strict=True)}
