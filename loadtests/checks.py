"""What a doctor asks of load tests: are there traces to replay? An edge: it looks for files.

In: what `warmtide doctor` was asked to look at. Out: findings. Never: opens a trace.
"""

from collections.abc import Iterator
from pathlib import Path

from gateway.doctor.finding import Finding, Setup, ok, warn
from loadtests.trace_places import DEMO_TRACE, GENERATED, traces_folder, traces_in


def traces(setup: Setup) -> Iterator[Finding]:
    """Where `warmtide replay` would look."""
    folder = traces_folder(setup.traces, Path.cwd())
    found = len(list(traces_in(folder)))
    demo = (folder / DEMO_TRACE).is_file()
    yield judge_traces(folder, found, demo=demo, named=setup.traces is not None)


def judge_traces(folder: Path, found: int, *, demo: bool, named: bool) -> Finding:
    """No traces are no trouble, unless somebody named a folder for them."""
    stand_in = f"the built-in generator serves (`warmtide replay {GENERATED}`, `--demo`)"
    if found:
        with_demo = "with" if demo else f"{stand_in}; without"
        return ok("traces", f"{found} files in {folder}, {with_demo} the one that `--demo` replays")
    if named:
        mend = "mend --traces or WARMTIDE_TRACES: it holds no */*.csv, *.csv.gz or *.jsonl"
        return warn("traces", f"none in {folder}: {stand_in}", mend)
    return ok("traces", f"none at hand: {stand_in}")
