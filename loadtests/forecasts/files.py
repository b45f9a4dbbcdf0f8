"""The files that a command leaves: a picture, a report. An edge.

In: where they go, and what draws them. Out: files, and sentences about them. What stands in the way
is told before an hour's run rather than after it. Never: imports what draws where nothing is drawn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loadtests.errors import AskedError
from loadtests.telling import without_plots


class Drawing(NamedTuple):
    """What draws; both take the same."""

    png: Callable[..., bytes]
    html: Callable[..., str]


class Files(NamedTuple):
    png: Path | None
    html: Path | None

    def drawing(self, find: Callable[[], Drawing]) -> Drawing | None:
        """What `find` imports: it needs matplotlib, an extra. None where nothing is drawn."""
        if self.png is None and self.html is None:
            return None
        for path in self:
            if path is not None and not path.absolute().parent.is_dir():
                raise AskedError(f"{path}: there is no such folder; make it, or name another place")
            if path is not None and path.is_dir():
                raise AskedError(f"{path}: is a folder; name a file in it")
        try:
            return find()
        except ModuleNotFoundError as error:
            raise without_plots(error) from None

    def leave(self, drawing: Drawing, *drawn: object) -> list[str]:
        told = []
        if self.png is not None:
            self.png.write_bytes(drawing.png(*drawn))
            told.append(f"wrote {self.png}")
        if self.html is not None:
            self.html.write_text(drawing.html(*drawn), "utf-8")
            told.append(f"wrote {self.html}")
        return told
