"""GPUs as bars of text: a character is so many bytes, a sign says who holds them. Pure.

In: `GpuPicture`s, a width. Out: pieces of text, each with the stand it shows, together exactly as
wide as asked. Readable without colour. Never: prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from placement.planning.pictured import Block, GpuPicture, Stand

SIGNS: dict[Stand, str] = {
    Stand.SERVES: "=",
    Stand.STARTS: "+",
    Stand.DRAINS: "-",
    Stand.WARM: "~",
    Stand.PARKED: "p",
    Stand.SHED: "s",
    Stand.ENDS: "e",
    Stand.FAILED: "x",
    Stand.OTHER: "?",
}
FREE, BEYOND = ".", "#"
ASLEEP = (Stand.PARKED, Stand.SHED)
"""A GPU may hold the residue of dozens: they are counted, not drawn one by one."""
NAMED_WIDTH_MIN = 4
"""A narrower piece has no room for a name."""

LEGEND = (
    "= serves  + on its way to serving  - drains  ~ warm  p parked, how many  s shed",
    "x failed  ? not of the catalog  . free  # the driver's  *n: action n",
)


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    stand: Stand | None = None
    """None: nobody's."""
    marked: bool = False
    """An action concerns it."""


@dataclass(slots=True)
class _Part:
    sign: str
    bytes: int
    name: str = ""
    stand: Stand | None = None
    marked: bool = False
    width: int = 0


def bar(gpu: GpuPicture, width: int) -> list[Piece]:
    """Whoever holds bytes gets at least one character; those that sleep share theirs by kind."""
    parts = [
        *_parts([block for block in gpu.blocks if block.bytes]),
        _Part(FREE, gpu.free_bytes),
        _Part(BEYOND, gpu.hbm_bytes - gpu.usable_bytes),
    ]
    parts = [part for part in parts if part.bytes > 0]
    _share_out(parts, width)
    return [Piece(_text(part), part.stand, part.marked) for part in parts if part.width]


def _parts(blocks: Sequence[Block]) -> list[_Part]:
    asleep = [[block for block in blocks if block.stand is stand] for stand in ASLEEP]
    alone = [[block] for block in blocks if block.stand not in ASLEEP]
    return [_part(kind) for kind in (*alone, *asleep) if kind]


def _part(blocks: list[Block]) -> _Part:
    stand, held = blocks[0].stand, sum(block.bytes for block in blocks)
    numbers = [str(number) for block in blocks for number in block.actions]
    name = blocks[0].model_id if len(blocks) == 1 else f"{len(blocks)}"
    marks = f"*{','.join(numbers)} " if numbers else ""
    return _Part(SIGNS[stand], held, f"{marks}{name}", stand, bool(numbers))


def _share_out(parts: list[_Part], width: int) -> None:
    """Widths by bytes, at least one each; what that takes too much comes off the widest."""
    total = sum(part.bytes for part in parts)
    for part in parts:
        part.width = max(round(part.bytes * width / total), 1)
    while (over := sum(part.width for part in parts) - width) != 0:
        widest = max(parts, key=lambda part: part.width)
        widest.width -= max(min(over, widest.width - 1), 1) if over > 0 else over


def _text(part: _Part) -> str:
    if part.name and part.width >= min(NAMED_WIDTH_MIN, len(part.name) + 1):
        return f"{part.sign}{part.name}"[: part.width].ljust(part.width, part.sign)
    return (part.sign * part.width)[:-1] + ("*" if part.marked else part.sign)
