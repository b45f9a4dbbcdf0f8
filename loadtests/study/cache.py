"""Cells that were run once are kept, so that a long comparison can be resumed. An edge.

In: what a cell depends on. Out: its file, read or written whole. A cell is found again only while
the scenario, the trace, the policy, the seed and the code that matters are the same to the byte.
Never: believes a file that it cannot read, leaves half of one behind.
"""

import gzip
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from gateway.environment import cache_home
from loadtests.errors import AskedError
from loadtests.study.cells import Cell
from loadtests.study.running import plugin_digest
from loadtests.study.sketch import Sketch
from loadtests.study.task import Task

# What a simulated run depends on: a change in any of these files makes every cell a new one.
CODE = {
    "placement": ("**/*.py",),
    "prewarm": ("**/*.py",),
    "gateway": ("admission.py", "openai_api.py", "queues.py", "routing.py"),
    "loadtests": (
        "arrivals.py",
        "baselines/**/*.py",
        "draws.py",
        "foresights/**/*.py",
        "generator.py",
        "scenarios/*.py",
        "simulator/**/*.py",
        "study/cells.py",
        "study/running.py",
        "study/sketch.py",
        "study/task.py",
    ),
}


@cache
def code_digest() -> str:
    """Of the sources, by name and content, in order of names."""
    digest = hashlib.sha256()
    for package, patterns in CODE.items():
        root = Path(str(files(package)))
        for path in sorted({p for pattern in patterns for p in root.glob(pattern)}):
            digest.update(f"{package}/{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Cells:
    """A folder of cells, two files each: figures, and what plots need of them."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder or cache_home() / "warmtide" / "cells"

    def ready(self) -> None:
        """Make the folder, or say why it cannot be one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AskedError(f"--cache {self.folder}: cannot be made: {error.strerror}") from None
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise AskedError(f"--cache {self.folder}: you may not write there; name another folder")

    def key(self, task: Task) -> str:
        parts = (task.identity(), code_digest(), plugin_digest(task.policy))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def find(self, task: Task) -> Cell | None:
        """The cell if it was run before; one that cannot be read counts as not run."""
        try:
            return msgspec.json.decode(self._cell(self.key(task)).read_bytes(), type=Cell)
        except (OSError, msgspec.MsgspecError):
            return None

    def sketch(self, task: Task) -> Sketch | None:
        try:
            packed = self._sketch(self.key(task)).read_bytes()
            return msgspec.json.decode(gzip.decompress(packed), type=Sketch)
        except (OSError, EOFError, msgspec.MsgspecError):
            return None

    def keep(self, key: str, cell: Cell, sketch: Sketch) -> None:
        """The cell last: where it is found, its sketch is there too."""
        self._cell(key).parent.mkdir(parents=True, exist_ok=True)
        _write(self._sketch(key), gzip.compress(msgspec.json.encode(sketch), mtime=0))
        _write(self._cell(key), msgspec.json.encode(cell))

    def _cell(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _sketch(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.plot.json.gz"


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else writes the same cell just now."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
