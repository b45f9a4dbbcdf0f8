"""How long one rung plan takes as clusters grow: figures to words and a plot. Pure.

In: measured rounds. Out: Markdown, a figure. Never: plans, measures.
"""

from collections.abc import Iterator, Sequence
from math import log
from statistics import median
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from loadtests.drawing import COLOURS, MARKERS, new_figure

TARGET_GPUS = 1_000
TARGET_MS = 50.0


class Round(NamedTuple):
    """One plan of one cluster."""

    world: str
    gpus: int
    models: int
    replicas: int
    actions: int
    cpu_ms: float


class Size(NamedTuple):
    """All rounds of clusters of one size in one world."""

    world: str
    gpus: int
    rounds: tuple[Round, ...]

    @property
    def median_ms(self) -> float:
        return median(r.cpu_ms for r in self.rounds)

    @property
    def worst_ms(self) -> float:
        return max(r.cpu_ms for r in self.rounds)


class Machine(NamedTuple):
    cpu: str
    python: str


def sizes(rounds: Sequence[Round]) -> list[Size]:
    keys = dict.fromkeys((r.world, r.gpus) for r in rounds)
    return [Size(w, n, tuple(r for r in rounds if (r.world, r.gpus) == (w, n))) for w, n in keys]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Of the power of n that comes nearest, by least squares of the logarithms."""
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def growth(found: Sequence[Size]) -> tuple[float, float]:
    """Exponents: the measured one, and that of n log n over the same sizes."""
    measured = [(float(s.gpus), s.median_ms) for s in found]
    n_log_n = [(float(s.gpus), s.gpus * log(s.gpus)) for s in found]
    return exponent(measured), exponent(n_log_n)


def markdown(rounds: Sequence[Round], machine: Machine, plot: str) -> str:
    found = sizes(rounds)
    worlds = list(dict.fromkeys(s.world for s in found))
    return "\n".join(
        [
            "# How long a rung plan takes",
            "",
            *_about(machine, max(len(s.rounds) for s in found)),
            "",
            f"![CPU time of one plan against the number of GPUs]({plot})",
            "",
            *_table(found),
            "",
            *(line for world in worlds for line in _verdict(world, found)),
            "",
        ]
    )


def _about(machine: Machine, seeds: int) -> Iterator[str]:
    yield "Written by `make plan-bench`. One call of `plan_rungs` on a snapshot of which nothing was"
    yield "reckoned before; CPU time of one core, garbage collection included; medians and the worst"
    yield f"of {seeds} seeded clusters a size. Nodes have eight GPUs; there is a model for every five"
    yield "GPUs, and of a hundred models three are held with nothing serving, three are full, six"
    yield "have too many replicas (`loadtests/plan_cases.py`). On"
    yield f"{machine.cpu}, Python {machine.python}."


def _table(found: Sequence[Size]) -> Iterator[str]:
    yield "| world | GPUs | models | replicas | actions | median ms | worst ms | µs a GPU |"
    yield "|---|---|---|---|---|---|---|---|"
    for size in found:
        one = size.rounds
        counts = (
            median(r.models for r in one),
            median(r.replicas for r in one),
            median(r.actions for r in one),
        )
        cells = [size.world, str(size.gpus), *(f"{count:.0f}" for count in counts)]
        cells += [f"{size.median_ms:.1f}", f"{size.worst_ms:.1f}"]
        cells += [f"{1000 * size.median_ms / size.gpus:.0f}"]
        yield f"| {' | '.join(cells)} |"


def _verdict(world: str, found: Sequence[Size]) -> Iterator[str]:
    mine = [s for s in found if s.world == world]
    target = next((s for s in mine if s.gpus == TARGET_GPUS), None)
    if target is not None:
        kept = "kept" if target.median_ms <= TARGET_MS else "**missed**"
        yield (
            f"- World {world}: {target.median_ms:.1f} ms for {TARGET_GPUS} GPUs; the target of "
            f"{TARGET_MS:.0f} ms is {kept}."
        )
    if len(mine) > 1:
        measured, n_log_n = growth(mine)
        kept = "kept" if measured <= n_log_n else "**missed**"
        yield (
            f"- World {world}: time grows as n^{measured:.2f}, n log n over the same sizes as "
            f"n^{n_log_n:.2f}; the target of n log n is {kept}."
        )


def figure(rounds: Sequence[Round]) -> Figure:
    """Both axes logarithmic, with n log n through the target for the eye."""
    drawn, axes = new_figure(6.4, 4.0)
    found = sizes(rounds)
    for at, world in enumerate(dict.fromkeys(s.world for s in found)):
        mine = [s for s in found if s.world == world]
        x, y = [s.gpus for s in mine], [s.median_ms for s in mine]
        axes.plot(x, y, marker=MARKERS[at], color=COLOURS[at], label=f"world {world}")
    gpus = np.array(sorted({s.gpus for s in found}), dtype=np.float64)
    scale = TARGET_MS / (TARGET_GPUS * log(TARGET_GPUS))
    axes.plot(gpus, scale * gpus * np.log(gpus), ":", color=COLOURS[6], label="n log n, target")
    axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="CPU time of one plan, ms")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    return drawn
