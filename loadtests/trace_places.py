"""Where real traces lie on this machine, and what stands in where there are none. An edge.

In: a folder given by the user, or the folder we are in. Out: paths. Never: opens a trace.
"""

from collections.abc import Iterator
from pathlib import Path

GENERATED = "generated"
DEMO_TRACE = Path("servegen/clients_10min_m-large.csv.gz")
_KINDS = ("*.csv", "*.csv.gz", "*.jsonl", "*.jsonl.gz")


def traces_folder(given: Path | None, here: Path) -> Path:
    """The one that was named, else the one beside the repository that we are in."""
    if given is not None:
        return given
    root = next((p for p in (here, *here.parents) if (p / "pyproject.toml").is_file()), here)
    return root.parent / "shared" / "traces"


def demo_trace(given: Path | None, here: Path) -> str:
    """A real trace from that folder, else our generator."""
    path = traces_folder(given, here) / DEMO_TRACE
    return str(path) if path.is_file() else GENERATED


def named_traces(incomplete: str) -> list[str]:
    """For completion: our generator, and the traces that lie where `--demo` looks."""
    names = [GENERATED, *map(str, traces_in(traces_folder(None, Path.cwd())))]
    return [name for name in names if name.startswith(incomplete)]


def traces_in(folder: Path) -> Iterator[Path]:
    """Files that look like traces, each collection in a folder of its own."""
    for kind in _KINDS:
        yield from sorted(folder.glob(f"*/{kind}"))
