"""Plots of a comparison, each as one SVG text. Pure: matplotlib's figures, no window, no file.

In: cells and sketches. Out: SVG. Never: computes a figure that the tables do not have.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from loadtests.drawing import COLOURS, MARKERS, STYLED, new_figure, svg
from loadtests.study.cells import Cell
from loadtests.study.sketch import SHARES, Sketch

RUNG_NAMES = ("nothing", "shed", "parked", "warm", "serving")
RUNG_COLOURS = ("#f2f2f2", "#fde0c5", "#f2a772", "#d95f5f", "#6b1f4f")
_TTFT_MS = np.geomspace(1, 999_000, 240)
_MODELS_NAMED_MAX = 40


class Drawn(NamedTuple):
    """A cell with what its plots need."""

    cell: Cell
    sketch: Sketch


class Point(NamedTuple):
    """A policy's mean cost and its waiting, over cells that all policies ran."""

    cost: float
    wait_ms: float


def colour_of(policies: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Each policy keeps its colour and marker through all plots of a report."""
    return {
        policy: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, policy in enumerate(policies)
    }


@STYLED
def ttft_distributions(drawn: Sequence[Drawn], colours: Mapping[str, tuple[str, str]]) -> str:
    """Of all requests of all cells, a line for each policy."""
    figure, axes = new_figure(7.4, 3.6)
    for policy, (colour, _) in colours.items():
        own = [one for one in drawn if one.cell.policy == policy and one.sketch.ttft_ms]
        if own:
            axes.plot(_TTFT_MS / 1000, pooled_shares(own), color=colour, label=policy)
    axes.set_xscale("log")
    axes.set_xlabel("time to first token, s (999: not answered)")
    axes.set_ylabel("share of requests")
    axes.set_ylim(0, 1.01)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    return svg(figure)


def pooled_shares(own: Sequence[Drawn]) -> list[float]:
    """The share of all requests that were answered within each time, cells weighed by requests."""
    weights = np.array([one.cell.requests for one in own], np.float64)
    each = [np.interp(_TTFT_MS, one.sketch.ttft_ms, SHARES, left=0.0, right=1.0) for one in own]
    pooled: list[float] = (weights @ np.array(each) / weights.sum()).tolist()
    return pooled


@STYLED
def gpu_timeline(drawn: Sequence[Drawn], colours: Mapping[str, tuple[str, str]]) -> str:
    """GPUs that serve, and requests that wait, of one cell of each policy."""
    figure = Figure(figsize=(7.4, 4.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for cell, sketch in drawn:
        at_min = np.array(sketch.at_s) / 60
        colour, _ = colours[cell.policy]
        above.step(at_min, sketch.gpus_serving, where="post", color=colour, label=cell.policy)
        below.step(at_min, sketch.held, where="post", color=colour)
    longest = max((one.sketch for one in drawn), key=lambda sketch: len(sketch.at_s))
    there = (np.array(longest.at_s) / 60, longest.gpus_there)
    above.step(*there, where="post", color="#999999", linestyle=":", label="GPUs there")
    above.set_ylabel("GPUs serving")
    below.set_ylabel("requests held")
    below.set_yscale("symlog", linthresh=1)
    below.set_xlabel("minutes, warm-up included")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    above.legend(frameon=False, ncols=3, fontsize=8, loc="upper left")
    return svg(figure)


@STYLED
def rung_map(one: Drawn) -> str:
    """Each model's nearest rung over time, of one cell."""
    sketch = one.sketch
    models = len(sketch.models)
    figure, axes = new_figure(7.4, 0.7 + min(0.18 * models, 6.0) + 0.4)
    end_min = sketch.at_s[-1] / 60 if sketch.at_s else 1.0
    axes.imshow(
        np.array(sketch.rungs, np.uint8),
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(RUNG_COLOURS),
        norm=BoundaryNorm(np.arange(-0.5, len(RUNG_NAMES)), len(RUNG_NAMES)),
        extent=(0, max(end_min, 1e-3), models - 0.5, -0.5),
    )
    if models <= _MODELS_NAMED_MAX:
        axes.set_yticks(range(models), sketch.models, fontsize=7)
    else:
        axes.set_ylabel(f"{models} models, busiest first")
    axes.set_xlabel("minutes, warm-up included")
    legend = [
        Patch(facecolor=colour, edgecolor="#999999", label=name)
        for colour, name in zip(RUNG_COLOURS, RUNG_NAMES, strict=True)
    ]
    axes.legend(
        handles=legend, ncols=5, frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1)
    )
    return svg(figure)


@STYLED
def cost_against_waiting(
    points: Mapping[str, Point], colours: Mapping[str, tuple[str, str]], cost_name: str
) -> str:
    """A point for each policy; the line joins those that no other beats in both."""
    figure, axes = new_figure(7.4, 3.8)
    for policy, point in points.items():
        colour, marker = colours[policy]
        axes.scatter([point.cost], [point.wait_ms / 1000], color=colour, marker=marker, zorder=3)
        axes.annotate(
            policy, point_xy(point), xytext=(6, 4), textcoords="offset points", fontsize=8
        )
    front = [point_xy(points[policy]) for policy in pareto_front(points)]
    axes.step(*zip(*front, strict=True), where="post", color="#777777", linestyle="--", zorder=1)
    axes.set_yscale("log")
    axes.set_xlabel(f"{cost_name}, mean of the cells")
    axes.set_ylabel("P99 to first token, s\n(geometric mean)")
    axes.margins(x=0.15, y=0.15)
    axes.grid(alpha=0.25, which="both")
    return svg(figure)


def point_xy(point: Point) -> tuple[float, float]:
    return (point.cost, point.wait_ms / 1000)


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Policies that no other beats in both cost and waiting, cheapest first."""
    front: list[str] = []
    least = float("inf")
    for policy in sorted(points, key=lambda name: (points[name], name)):
        if points[policy].wait_ms < least:
            front.append(policy)
            least = points[policy].wait_ms
    return front
