"""How engines that share a GPU take turns on it, in every cell of the joint paths. Pure.

In: what each of them saves per cell if it has its GPUs, and the bytes that it serves with. Out:
what they save together, and what one more would add. Never: decides.

**The model.** Each GPU of an engine earns an equal part of what the engine saves. In a cell a GPU
gives its bytes to whom they save most per byte, in parts where they do not suffice for all: a
fractional knapsack, which allows for turns within a step, and for as many at once as fit.

**Monotone and submodular.** The bytes that a set of engines can use on a GPU in a cell, min(room,
sum of their bytes), are the rank of a polymatroid, and what they save is its weighted rank: the
integral over t of the rank of those that save more than t per byte. Sums and integrals of monotone
submodular functions are monotone and submodular.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from placement.planning.uses import Cells, Floats, Mask, Use
from placement.snapshot import Rung


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What one GPU of an engine would earn."""

    key: tuple[str, int]
    cells: Cells
    per_byte: Floats
    """Saved per byte, in each of these cells."""
    bytes: float


def part_of(use: Use, rests: Rung, *, exists: bool) -> Part:
    """Cells in which it saves nothing are left out: there it leaves the GPU to others."""
    saved = use.saved(rests, exists=exists) / (use.spec.gpus * use.bytes_per_gpu)
    kept = np.flatnonzero(saved)
    return Part(key=use.key, cells=use.cells[kept], per_byte=saved[kept], bytes=use.bytes_per_gpu)


class GpuTurns:
    """One GPU. Mutable while a plan is made."""

    def __init__(self, usable_bytes: int, cells: int) -> None:
        self.room: Floats = np.full(cells, float(usable_bytes))
        self.version = 0
        """Grows with each change; what was worked out before is a bound from above then."""
        self._parts: dict[tuple[str, int], Part] = {}
        self._sort()

    def occupy(self, cells: Mask, taken: float) -> None:
        """These bytes are not to be had: whoever serves now serves on."""
        self.room = np.maximum(self.room - cells * taken, 0.0)
        self._sort()

    def put(self, part: Part) -> None:
        self._parts[part.key] = part
        self._sort()

    def drop(self, key: tuple[str, int]) -> None:
        del self._parts[key]
        self._sort()

    @property
    def value(self) -> float:
        return self._whole.value

    def more(self, part: Part) -> float:
        """What one more would add."""
        return self._more(part, self._queue(part.cells))

    def loss(self, key: tuple[str, int]) -> float:
        """What is lost without one that is there."""
        at = self._parts[key].cells
        return self._queue(at).value - self._queue(at, without=key).value

    def instead(self, part: Part) -> float:
        """What is gained if it earns so much instead."""
        others = self._queue(part.cells, without=part.key)
        return self._more(part, others) - self.loss(part.key)

    def _more(self, part: Part, queue: "_Queue") -> float:
        """What it earns with the bytes that it gets, less what those earn who come after it and
        get fewer."""
        room = self.room[part.cells]
        first = queue.per_byte >= part.per_byte
        taken = np.where(first, queue.wanted, 0.0).sum(axis=0)
        gets = np.clip(room - taken, 0.0, part.bytes)
        left = np.clip(room - gets - queue.before, 0.0, queue.wanted)
        loses = (np.where(first, 0.0, queue.per_byte) * (queue.given - left)).sum(axis=0)
        return float((part.per_byte * gets - loses).sum())

    def _queue(self, at: Cells, without: tuple[str, int] | None = None) -> "_Queue":
        """Who comes when in these cells, and gets how much."""
        if without is None:
            return self._whole.at(at)
        row = list(self._parts).index(without)
        whole = self._whole
        wanted = np.where(whole.row[:, at] == row, 0.0, whole.wanted[:, at])
        return _queued(whole.row[:, at], whole.per_byte[:, at], wanted, self.room[at])

    def _sort(self) -> None:
        """In every cell, whoever saves most per byte comes first."""
        self.version += 1
        per_byte = np.zeros((len(self._parts), len(self.room)))
        wanted = np.zeros_like(per_byte)
        for row, part in enumerate(self._parts.values()):
            per_byte[row, part.cells] = part.per_byte
            wanted[row, part.cells] = part.bytes
        order = np.argsort(-per_byte, axis=0, kind="stable")
        self._whole = _queued(
            order,
            np.take_along_axis(per_byte, order, axis=0),
            np.take_along_axis(wanted, order, axis=0),
            self.room,
        )


@dataclass(frozen=True, slots=True)
class _Queue:
    """Parts by cells, in each cell in the order in which they get bytes."""

    row: Cells
    per_byte: Floats
    wanted: Floats
    before: Floats
    """Wanted by those that come first."""
    given: Floats

    @property
    def value(self) -> float:
        return float((self.per_byte * self.given).sum())

    def at(self, cells: Cells) -> "_Queue":
        return _Queue(
            self.row[:, cells],
            self.per_byte[:, cells],
            self.wanted[:, cells],
            self.before[:, cells],
            self.given[:, cells],
        )


def _queued(row: Cells, per_byte: Floats, wanted: Floats, room: Floats) -> _Queue:
    before = np.cumsum(wanted, axis=0) - wanted
    return _Queue(row, per_byte, wanted, before, np.clip(room - before, 0.0, wanted))


def value_of(gpus: Iterable[GpuTurns]) -> float:
    return sum(gpu.value for gpu in gpus)
