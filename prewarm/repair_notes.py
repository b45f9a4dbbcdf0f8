"""What was wrong with a stream's data and what was done about it, in words. Pure.

In: findings with the line in which they stand. Out: notes per stream, one for each kind of finding,
with how often and where first. Never: repairs anything.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Notes:
    """Collects findings. Mutated by `cell`, `row` and `say`. `unit`: what a row is called."""

    def __init__(self, streams: Sequence[str], unit: str = "line") -> None:
        self._streams = tuple(streams)
        self._unit = unit
        self._rows: dict[str, _Found] = {}
        self._cells: dict[str, dict[str, _Found]] = {}
        self._said: dict[str, list[str]] = {}

    def row(self, what: str, line: int, shown: str = "", count: int = 1) -> None:
        """Something about whole rows: it concerns every stream. `what` is told of many."""
        _count(self._rows, what, line, shown, count)

    def cell(self, stream: str, what: str, line: int, shown: str = "", count: int = 1) -> None:
        _count(self._cells.setdefault(stream, {}), what, line, shown, count)

    def say(self, stream: str, text: str) -> None:
        """A remark on the stream as a whole."""
        self._said.setdefault(stream, []).append(text)

    def told(self) -> dict[str, tuple[str, ...]]:
        """The notes of each stream; empty where nothing was wrong."""
        rows = [found.told(what, self._unit) for what, found in self._rows.items()]
        return {
            stream: (
                *rows,
                *(
                    found.told(what, self._unit)
                    for what, found in self._cells.get(stream, {}).items()
                ),
                *self._said.get(stream, ()),
            )
            for stream in self._streams
        }


class _Found:
    __slots__ = ("count", "line", "shown")

    def __init__(self, line: int, shown: str) -> None:
        self.count, self.line, self.shown = 0, line, shown

    def told(self, what: str, unit: str) -> str:
        first = f"{unit} {self.line}" + (f": {self.shown}" if self.shown else "")
        where = first if self.count == 1 else f"first {first}"
        return f"{self.count} x {what} ({where})"


def _count(among: dict[str, _Found], what: str, line: int, shown: str, count: int) -> None:
    found = among.get(what)
    if found is None:
        found = among[what] = _Found(line, shown)
    elif line < found.line:
        found.line, found.shown = line, shown
    found.count += count


def moment(at_us: int) -> str:
    """A time for people, in UTC; past what a calendar can say, in seconds."""
    try:
        return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%S}Z"
    except OverflowError:
        return f"{at_us / 1e6:.0f} s"


def shown(cell: str) -> str:
    """A cell as it stands, cut to what fits a line."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
