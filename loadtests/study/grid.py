"""Which cells of a scenario are run: one, a handful, or its whole grid. Pure.

In: a `ScenarioFile` and what was asked for. Out: cells, and the file in the size that was asked.
Never: runs a cell, reads a file.
"""

from dataclasses import dataclass
from itertools import product

from loadtests.errors import AskedError
from loadtests.scenarios.shape import CellEntry, Cv, Hour, ScenarioFile, SizeEntry, keys_of

QUICK = "quick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """Values of the grid's keys that alone are wanted; empty: all that the scenario gives."""

    rps: tuple[float, ...] = ()
    alpha: tuple[float, ...] = ()
    cv: tuple[Cv, ...] = ()
    hour: tuple[Hour, ...] = ()


def resized(
    file: ScenarioFile, size: str | None, duration_us: int | None, *, quick: bool = False
) -> ScenarioFile:
    """The scenario in another of its sizes, or for another time."""
    if size is None and quick and QUICK in file.sizes:
        size = QUICK
    if size is not None:
        file = _sized(file, _size(file, size))
    if duration_us is not None:
        file = _lasting(file, duration_us)
    return file


def _size(file: ScenarioFile, size: str) -> SizeEntry:
    if size in file.sizes:
        return file.sizes[size]
    raise AskedError(f"--size {size}: the scenario has {', '.join(file.sizes) or 'no other size'}")


def _sized(file: ScenarioFile, size: SizeEntry) -> ScenarioFile:
    if size.nodes is not None:
        first = file.nodes[0].model_copy(update={"count": size.nodes})
        file = file.model_copy(update={"nodes": [first, *file.nodes[1:]]})
    if size.rps is not None:
        cell = file.cell.model_copy(update={"rps": size.rps})
        file = file.model_copy(update={"cell": cell})
    return file if size.duration is None else _lasting(file, size.duration)


def _lasting(file: ScenarioFile, duration_us: int) -> ScenarioFile:
    lasting = file.slice.model_copy(update={"duration": duration_us})
    return file.model_copy(update={"slice": lasting})


def one_cell(file: ScenarioFile, narrowed: Narrowed) -> CellEntry:
    """The scenario's default cell, with whatever was asked for instead."""
    found = _cells(narrowed, {key: [getattr(file.cell, key)] for key in keys_of(file.cell)})
    if len(found) > 1:
        raise AskedError("give one value for each of --rps, --alpha, --cv and --hour")
    return found[0]


def cells(file: ScenarioFile, narrowed: Narrowed, *, quick: bool) -> list[CellEntry]:
    """All cells of the grid, or the scenario's handful, as far as they are wanted."""
    if quick and file.quick and narrowed == Narrowed():
        return list(file.quick)
    varied: dict[str, list[object]] = {}
    for key in keys_of(file.cell):
        listed = [] if quick else getattr(file.grid, key)
        varied[key] = list(listed) or [getattr(file.cell, key)]
    return _cells(narrowed, varied)


def _cells(narrowed: Narrowed, varied: dict[str, list[object]]) -> list[CellEntry]:
    for key in CellEntry.model_fields:
        wanted = getattr(narrowed, key)
        if wanted and key not in varied:
            has = ", ".join(varied) or "nothing"
            raise AskedError(f"--{key}: this scenario does not say its {key}; it varies {has}")
        if wanted:
            varied[key] = list(wanted)
    return [
        CellEntry.model_validate(dict(zip(varied, values, strict=True)))
        for values in product(*varied.values())
    ]
