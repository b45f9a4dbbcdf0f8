"""The two shapes of a trace, and what is said when a file is not one.

In: nothing. Out: `Counts` (requests per stream and bin, with holes), `Requests` (one row each),
`TraceError`. Never: reads a file, draws a number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

US = 1_000_000
HOUR_US = 3600 * US
DAY_US = 24 * HOUR_US

Ints = NDArray[np.int64]


class TraceError(Exception):
    """A file that cannot be read as a trace: where, what, and what to do about it."""

    def __init__(
        self, file: str, what: str, remedy: str, *, line: int = 0, column: str = ""
    ) -> None:
        where = file + (f", line {line}" if line else "") + (f", column {column}" if column else "")
        super().__init__(f"{where}: {what}. {remedy}.")
        self.file = file
        self.line = line
        self.column = column
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """Requests per bin and stream. `counts` and `holes` are bins x streams; a hole counts 0.

    A hole says "nobody looked", which is not "nobody asked": mask it, never score it.
    """

    start_us: int
    width_us: int
    streams: tuple[str, ...]
    counts: Ints
    holes: NDArray[np.bool_]

    @property
    def duration_us(self) -> int:
        return len(self.counts) * self.width_us


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """One row a request, in order of time. `stream` indexes `streams`.

    Token columns are 0 where the trace does not tell; `prefix_blocks` is empty, or holds for each
    request the ids of its leading blocks of `block_tokens` prompt tokens (equal ids, equal text).
    """

    start_us: int
    at_us: Ints
    streams: tuple[str, ...]
    stream: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    prefix_blocks: tuple[tuple[int, ...], ...] = ()
    block_tokens: int = 512

    def __len__(self) -> int:
        return len(self.at_us)

    @property
    def duration_us(self) -> int:
        """From the start to just after the last request."""
        return int(self.at_us[-1]) - self.start_us + 1 if len(self.at_us) else 0

    def rows(self, chosen: Ints) -> "Requests":
        """The chosen rows (ascending indices) as a trace of their own."""
        blocks = self.prefix_blocks
        return Requests(
            start_us=self.start_us,
            at_us=self.at_us[chosen],
            streams=self.streams,
            stream=self.stream[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            prefix_blocks=tuple(blocks[i] for i in chosen.tolist()) if blocks else (),
            block_tokens=self.block_tokens,
        )


Trace = Counts | Requests
