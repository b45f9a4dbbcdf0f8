"""A published figure beside ours, and what the comparison is worth. Plain records.

In: figures and orderings. Out: ratios, verdicts, rows of Markdown. Never: computes a figure.

A figure on which one of our constants was fitted proves nothing and does not count. One that is off
by more than the tolerance says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

TOLERANCE = 0.2


class Verdict(StrEnum):
    REPRODUCED = "reproduced"
    MISSED = "missed"
    FITTED = "fitted on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    unit: str
    published: float
    ours: float
    source: str
    grade: str
    """Of the published figure, as in `placement.constants`."""
    fitted: str = ""
    """The constant that was fitted on it, by name."""
    assumed: str = ""
    """What the publication leaves open, and what was taken for it."""
    miss: str = ""
    """Why ours is off, if it is."""

    @property
    def ratio(self) -> float:
        return self.ours / self.published

    @property
    def within(self) -> bool:
        return abs(self.ratio - 1) <= TOLERANCE

    @property
    def verdict(self) -> Verdict:
        if self.fitted:
            return Verdict.FITTED
        return Verdict.REPRODUCED if self.within else Verdict.MISSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An order in which a publication ranks variants, best first; the figures are too coarse."""

    name: str
    best_first: tuple[str, ...]
    source: str
    grade: str
    why_not: str = ""
    """Where it does not hold here: what we take the reason to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """A claim beside our values of the same variants; larger is better."""

    claim: Claim
    ours: Mapping[str, float]

    @property
    def holds(self) -> bool:
        values = [self.ours[name] for name in self.claim.best_first]
        return all(better > worse for better, worse in pairwise(values))


T6 = Claim(
    name="WarmServe T6: requests under 100 ms by ablation",
    best_first=(
        "warmserve",
        "warmserve-noproactive",
        "warmserve-noplacement",
        "warmserve-noprewarm",
    ),
    source="WarmServe, arXiv 2512.09472: 100, 88, 29 and 15 % of the full system",
    grade="C",
    why_not="Without placement the released switch loads without deducting what is resident, "
    "until every GPU is full (see the idle memory below): on sixteen GPUs of which a "
    "third is free, warm nearly everywhere is no worse than warm in the right place; "
    "it costs loads. Without prewarming the weights still stay after a drain, so a "
    "relaunch is a hit all the same.",
)
T7 = Claim(
    name="WarmServe T7: requests under 100 ms by forecast window",
    best_first=("5 min", "3 min", "40 min"),
    source="WarmServe, arXiv 2512.09472: best, 46 and 30 %",
    grade="C",
    why_not="Twenty minutes hold four windows of 5 min and no end of one of 40, and what a launch "
    "finds warm was mostly left by an earlier drain: the window hardly matters in so short a run.",
)
"""Both are filled from the cells of `warmserve16`: one `Ordering` with the cells' shares."""


def figure_rows(figures: Iterable[Figure]) -> list[str]:
    """A table for the report, then what was assumed and why some were missed."""
    lines = [
        "| published result | published | ours | ratio | verdict | grade, source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    notes: dict[str, list[int]] = {}
    for number, f in enumerate(figures, 1):
        verdict = f"{f.verdict} (`{f.fitted}`)" if f.fitted else str(f.verdict)
        lines.append(
            f"| {number}. {f.name} | {_shown(f.published)} {f.unit} | {_shown(f.ours)} {f.unit} "
            f"| {f.ratio:.2f} | {verdict} | {f.grade}, {f.source} |"
        )
        missed = f.miss if f.verdict is Verdict.MISSED else ""
        for note in filter(None, (f.assumed, missed)):
            notes.setdefault(note, []).append(number)
    lines.append("")
    lines += [f"- {', '.join(map(str, numbers))}: {note}" for note, numbers in notes.items()]
    return lines


def ordering_rows(orderings: Iterable[Ordering]) -> list[str]:
    lines = ["| claim | ours | holds | grade, source |", "| --- | --- | --- | --- |"]
    for ordering in orderings:
        claim = ordering.claim
        ours = ", ".join(f"{n} {_shown(ordering.ours[n])}" for n in claim.best_first)
        holds = "yes" if ordering.holds else "no"
        lines.append(f"| {claim.name} | {ours} | {holds} | {claim.grade}, {claim.source} |")
    return lines


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
