"""The written report of the forecasts, in Markdown. Pure.

In: back-tests by trace, measured costs, the machine. Out: text. Never: runs anything; leaves out a
target that is missed, or a stream or week that is lost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan

from loadtests.forecasts.cases import (
    AGAINST_LAST,
    AGAINST_SIMPLE,
    COVERAGE_BINS_MIN,
    COVERAGE_SLACK,
    SHORT_AGAINST_LAST,
    WORST_WEEK_Q90,
)
from loadtests.forecasts.costs import Costs, cost_lines
from loadtests.forecasts.document import told_of_all
from loadtests.forecasts.findings import (
    COSTS,
    LAST_VALUE,
    Field,
    interval,
    left_out,
    losses,
    ratio,
)
from loadtests.forecasts.verdicts import Outcome, Verdict, judged
from loadtests.forecasts.words import number, percent
from loadtests.study.lines import heads, row

LOST_SHOWN = 8
SHARES_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    cpu: str
    cores: int
    python: str
    version: str
    command: str
    quick: bool
    overview: str
    """A plot beside the report; empty where nothing was drawn."""
    missing: Sequence[str]
    """Traces that do not lie here."""
    failed: Sequence[str]


def markdown(outcomes: Sequence[Outcome], costs: Costs | None, facts: Facts) -> str:
    verdicts = [one for outcome in outcomes for one in judged(outcome)]
    verdicts += costs.judged() if costs else []
    sections = (
        _head(facts),
        _targets(verdicts),
        _pinball(outcomes, facts.overview),
        _coverage(outcomes),
        _prices(outcomes),
        _choice(outcomes),
        _lost(outcomes),
        _weeks(outcomes),
        cost_lines(costs),
        _data(outcomes),
        _plots(outcomes),
        _failed(facts),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


# --- targets


def _head(facts: Facts) -> Iterator[str]:
    yield "# What the forecasts are worth"
    yield ""
    yield f"Written by `{facts.command}` with Warmtide {facts.version} on {facts.cores} cores"
    yield f"({facts.cpu}), Python {facts.python}. Rolling origin: each forecast knows the bins"
    yield "before it and nothing else; a horizon of k bins is the k-th bin after the last one seen."
    yield "Pinball is the mean over q50, q90 and q95, in units of a stream's own mean over its"
    yield "scored period; streams weigh alike, those under 100 scored requests are listed and not"
    yield "averaged. The simple baselines have quantiles of their own trailing three-day residuals."
    yield "Coverage is by randomised PIT. Ratios below 1: ours is better."
    yield ""
    if facts.quick:
        yield "**A quick version**: a few traces only. Do not quote it."
        yield ""
    if facts.missing:
        yield "**Not at hand here**: " + ", ".join(facts.missing) + ". Where no trace is, our own"
        yield "seeded generator stands in; its figures say nothing of real demand."
        yield ""


def _targets(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield from heads(("target", "met", "of", "worst"))
    for what in dict.fromkeys(one.what for one in verdicts):
        own = [one for one in verdicts if one.what == what]
        missed = [one for one in own if not one.met]
        worst = max(own, key=lambda one: (isnan(one.beyond), one.beyond))
        yield row(
            [what, str(len(own) - len(missed)), str(len(own)), f"{worst.where}: {worst.found}"]
        )
    yield ""
    missed = [one for one in verdicts if not one.met]
    if missed:
        yield "### Missed"
        yield ""
        yield from heads(("target", "where", "found"))
        for one in missed:
            yield row([one.what, one.where, f"**{one.found}**"])
        yield ""


# --- tables


def _each(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Field]]:
    for outcome in outcomes:
        for field in outcome.table:
            yield outcome, field


_LOSS_HEADS = (
    "trace", "horizon", "streams", "bins", "ours", "best simple", "its loss", "÷ best",
    "last value", "÷ last", "WAPE", "best simple WAPE", "÷ best",
)  # fmt: skip


def _pinball(outcomes: Sequence[Outcome], overview: str) -> Iterator[str]:
    yield "## Loss"
    yield ""
    if overview:
        yield f"![Our loss over the best simple baseline's and over last value's]({overview})"
        yield ""
    yield "Bold: a target is missed."
    yield ""
    yield from heads(_LOSS_HEADS)
    for outcome, field in _each(outcomes):
        case, ours = outcome.case, field.ours.score
        best, wape = field.others.get(field.best_simple), field.others.get(field.best_wape)
        last = field.others.get(LAST_VALUE)
        over_best, over_last = field.against(field.best_simple), field.against(LAST_VALUE)
        yield row(
            [
                case.title,
                field.word,
                str(field.ours.streams),
                str(ours.n),
                number(ours.pinball, 4),
                f"`{field.best_simple}`",
                number(best.score.pinball, 4) if best else "–",
                _bold(over_best, case.named and over_best > AGAINST_SIMPLE),
                number(last.score.pinball, 4) if last else "–",
                _bold(over_last, over_last > (SHORT_AGAINST_LAST if case.short else AGAINST_LAST)),
                number(ours.wape, 3),
                f"{number(wape.score.wape, 3)} `{field.best_wape}`" if wape else "–",
                _bold(field.against_best_wape, not case.short and field.against_best_wape > 1),
            ]
        )
    yield ""


def _bold(value: float, missed: bool) -> str:
    return f"**{number(value, 3)}**" if missed else number(value, 3)


def _coverage(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Coverage"
    yield ""
    yield f"Where fewer than {COVERAGE_BINS_MIN} bins were scored, with the interval in which the"
    yield "true share lies at 95 % (Wilson's; bins taken as independent, so it is rather wider)."
    yield ""
    yield from heads(("trace", "horizon", "bins", "q90 holds", "q95 holds", "worst week of q90"))
    for outcome, field in _each(outcomes):
        score = field.ours.score
        held = [
            _with_interval(share, level, score.n)
            for share, level in ((score.coverage_q90, 0.90), (score.coverage_q95, 0.95))
        ]
        low = score.worst_week_q90 < WORST_WEEK_Q90
        worst = percent(score.worst_week_q90)
        cells = [
            outcome.case.title,
            field.word,
            str(score.n),
            *held,
            f"**{worst}**" if low else worst,
        ]
        yield row(cells)
    yield ""


def _with_interval(share: float, level: float, n: int) -> str:
    told = percent(share)
    if n >= COVERAGE_BINS_MIN:
        return f"**{told}**" if abs(share - level) > COVERAGE_SLACK else told
    low, high = interval(share, n)
    return f"{told} ({percent(low)} to {percent(high)})"


def _prices(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Cost of the decision"
    yield ""
    yield "Newsvendor cost per bin over a stream's mean, at the usual price r = 9 of waiting"
    yield "to idle, at a quarter and at four times of it: ours, ours ÷ last value's, the cheapest."
    yield ""
    own = [head for price in COSTS for head in (price, "÷ last", "cheapest")]
    yield from heads(("trace", "horizon", *own))
    for outcome, field in _each(outcomes):
        cells = [cell for cost in COSTS.values() for cell in _price_cells(field, cost)]
        yield row([outcome.case.title, field.word, *cells])
    yield ""


def _price_cells(field: Field, cost: str) -> list[str]:
    ours = getattr(field.ours.score, cost)
    known = {
        name: getattr(one.score, cost)
        for name, one in field.others.items()
        if not isnan(getattr(one.score, cost))
    }
    over = ratio(ours, known.get(LAST_VALUE, nan))
    least = min(known, key=lambda name: known[name], default="")
    return [number(ours, 3), _bold(over, over > 1), f"`{least}`" if least else "–"]


def _choice(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Who was chosen, and who had the right to act"
    yield ""
    yield from heads(("trace", "horizon", "right to act", "share of the blend", "bands clipped"))
    for outcome, field in _each(outcomes):
        shares = list(field.method_share.items())[:SHARES_SHOWN]
        told = ", ".join(f"`{name}` {share:.0%}" for name, share in shares)
        cells = [outcome.case.title, field.word, percent(field.acted_share), told]
        yield row([*cells, str(field.clipped)])
    yield ""


# --- what is lost


def _lost(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Streams that are lost"
    yield ""
    yield "To the best simple baseline of the trace and horizon, which is chosen with hindsight;"
    yield "worst first."
    yield ""
    for outcome in outcomes:
        found = losses(outcome.trial.found, outcome.table)
        of_all = sum(field.ours.streams for field in outcome.table)
        yield f"**{outcome.case.title}**: {len(found)} of {of_all} streams x horizons."
        yield ""
        if found:
            yield from heads(
                ("stream", "horizon", "ours", "baseline", "its loss", "ratio", "÷ last")
            )
        for one in found[:LOST_SHOWN]:
            losing = [number(one.theirs, 4), number(one.ratio, 3), number(one.against_last, 3)]
            yield row([one.stream, one.word, number(one.ours, 4), f"`{one.name}`", *losing])
        if found:
            yield ""


def _weeks(outcomes: Sequence[Outcome]) -> Iterator[str]:
    rows = [(one.case.title, week) for one in outcomes for week in one.worst_weeks]
    if not rows:
        return
    yield "## Weeks in which the q90 held least"
    yield ""
    yield "Share of the bins of all streams that lay within the q90, without the draw of the PIT."
    yield ""
    yield from heads(("trace", "horizon", "week from", "held"))
    for title, week in rows:
        yield row([title, week.word, week.began, percent(week.q90)])
    yield ""


# --- the rest


def _data(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## The data"
    yield ""
    yield from heads(("trace", "file", "bins", "bin", "scored from", "not averaged", "took"))
    for one in outcomes:
        trial = one.trial
        width_s = trial.panel.calendar.width_us / 1e6
        silent = left_out(trial.found)
        named = ", ".join(silent[:6]) + (f" and {len(silent) - 6} more" if len(silent) > 6 else "")
        yield row(
            [
                one.case.title,
                f"{trial.name} ({trial.demand})",
                str(len(trial.panel)),
                f"{width_s:g} s",
                f"bin {trial.found.first_scored}",
                named or "–",
                f"{one.took_s:.0f} s",
            ]
        )
    yield ""
    for one in outcomes:
        for note in told_of_all(one.trial):
            yield f"- {one.case.title}: {note}"
    yield ""


def _plots(outcomes: Sequence[Outcome]) -> Iterator[str]:
    drawn = [one for one in outcomes if one.plot]
    if not drawn:
        return
    yield "## Plots"
    yield ""
    for one in drawn:
        yield f"![{one.case.title}: what was asked, median, band, misses]({one.plot})"
        yield ""


def _failed(facts: Facts) -> Iterator[str]:
    if facts.failed:
        yield "## Not run"
        yield ""
        yield from (f"- {one}" for one in facts.failed)
