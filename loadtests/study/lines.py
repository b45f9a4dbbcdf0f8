"""Pieces of a report in Markdown. Pure.

In: values. Out: rows of tables, figures as people read them. Never: knows what is reported.
"""

from collections.abc import Iterable, Iterator, Sequence


def heads(names: Sequence[str]) -> Iterator[str]:
    yield row(names)
    yield "|" + "---|" * len(names)


def row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def shown(value: object) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def seconds(ms: float | None) -> str:
    return "–" if ms is None else f"{ms / 1000:.3f}"


def percent(shares: Sequence[float | None]) -> str:
    found = [share for share in shares if share is not None]
    return f"{100 * sum(found) / len(found):.1f} %" if found else "–"


def mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else "–"
