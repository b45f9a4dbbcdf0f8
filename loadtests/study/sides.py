"""The two sides of a slice that was run twice: a live emulated fleet, and the simulator. Pure.

In: figures of both. Out: their ratios, and lines of a report. Never: runs anything.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Side(NamedTuple):
    """One side's figures, in trace time."""

    answered: int
    cold_starts: int
    ttft_p50_ms: float
    ttft_p95_ms: float
    ttft_p99_ms: float


class Twin(NamedTuple):
    requests: int
    time_scale: float
    live: Side
    simulated: Side

    def rows(self) -> Iterator[tuple[str, float, float, float]]:
        """Figure, live, simulated, live over simulated."""
        for name, live, sim in zip(Side._fields, self.live, self.simulated, strict=True):
            yield name, live, sim, live / sim if sim else float(live == sim)

    def farthest(self) -> tuple[str, float]:
        """The figure in which the two differ most, and its ratio."""
        name, _, _, ratio = max(self.rows(), key=lambda row: abs(row[3] - 1))
        return name, ratio


def twin_lines(twins: Iterable[Twin]) -> Iterator[str]:
    """A section of the written report; nothing where nothing was run."""
    told = False
    for twin in twins:
        if not told:
            yield from _HEAD
            told = True
        name, ratio = twin.farthest()
        yield f"### {twin.requests} requests, time scale {twin.time_scale:g}"
        yield ""
        yield "| figure | live, emulated | simulated | ratio |"
        yield "| --- | --- | --- | --- |"
        for row in twin.rows():
            yield "| {} | {:g} | {:g} | {:.3f} |".format(*row)
        yield ""
        yield f"Farthest apart: `{name}`, {ratio:.3f}."
        yield ""


_HEAD = (
    "## The simulator beside a live fleet",
    "",
    "The same slice through real processes and sockets (gateway, agents, **emulated** engines) and",
    "through the simulator, both with the reactive controller in world S. Constants are shared, so",
    "agreement says that the harness adds little, not that the constants are right. The gateway's",
    "own time is magnified by the time scale.",
    "",
)
