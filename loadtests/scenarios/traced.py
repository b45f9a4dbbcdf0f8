"""Which trace a scenario is fed from: real ones where they lie, else our generator. An edge.

In: a scenario's `source`, the folder of traces, perhaps a file to use instead. Out: `Traced`.
Never: falls back to generated demand without saying so, copies a trace.
"""

import hashlib
from pathlib import Path

import numpy as np

from loadtests.draws import OUTPUT_TOKENS, PROMPT_TOKENS, stream
from loadtests.errors import AskedError
from loadtests.generator import World, generate_counts
from loadtests.scenarios.demand import LengthTable, Traced
from loadtests.trace_places import GENERATED
from loadtests.workload import LENGTHS_TRACE
from prewarm.traces.files import read_trace
from prewarm.traces.records import DAY_US, US, Counts, Requests

CONSTANT = "constant"
_CLIENTS = "servegen/clients_10min_{}.csv.gz"
_DAYS = 14
_WIDTH_US = 600 * US
_EVEN_COUNT = 1000
_LENGTH_ROWS = 20_000


def traced(source: str, models: int, folder: Path, instead: Path | None) -> Traced:
    """The demand for `models` models, by the scenario's source or by the file given instead."""
    lengths, lengths_told = _lengths(folder)
    counts, told = _given(instead, models) if instead else _sourced(source, models, folder)
    filled = _filled(counts)
    digest = hashlib.sha256(told.encode())
    for part in (filled.counts, lengths.prompt_tokens, lengths.output_tokens):
        digest.update(np.ascontiguousarray(part).tobytes())
    return Traced(
        counts=filled,
        told=told,
        holes=int(counts.holes.sum()),
        lengths=lengths,
        lengths_told=lengths_told,
        digest=digest.hexdigest()[:16],
    )


def _given(file: Path, models: int) -> tuple[Counts, str]:
    """A file, or the word `generated`, as of a replay."""
    if str(file) == GENERATED:
        return _generated(models)
    found = read_trace(file)
    if isinstance(found, Requests):
        raise AskedError(
            f"--trace {file}: holds one row a request; a scenario takes counts: a time column, "
            "then one column of counts per stream"
        )
    return found, file.name


def _sourced(source: str, models: int, folder: Path) -> tuple[Counts, str]:
    if source == CONSTANT:
        return _even(models), CONSTANT
    names = source.removeprefix("servegen ").split(" + ")
    files = [folder / _CLIENTS.format(name) for name in names]
    if not all(file.is_file() for file in files):
        return _generated(models)
    read = [_counts(file) for file in files]
    named = [f"{name}/{s}" for name, one in zip(names, read, strict=True) for s in one.streams]
    assert len({len(one.counts) for one in read}) == 1, "ServeGen's files cover the same two weeks"
    together = Counts(
        start_us=read[0].start_us,
        width_us=read[0].width_us,
        streams=tuple(named),
        counts=np.concatenate([one.counts for one in read], axis=1),
        holes=np.concatenate([one.holes for one in read], axis=1),
    )
    return together, source


def _generated(models: int) -> tuple[Counts, str]:
    return generate_counts(0, World(clients=models, days=_DAYS)), GENERATED


def _counts(file: Path) -> Counts:
    found = read_trace(file)
    assert isinstance(found, Counts), f"{file.name} holds counts"
    return found


def _even(models: int) -> Counts:
    """Every model is asked the same in every bin."""
    shape = (_DAYS * DAY_US // _WIDTH_US, models)
    return Counts(
        start_us=0,
        width_us=_WIDTH_US,
        streams=tuple(f"s{i}" for i in range(models)),
        counts=np.full(shape, _EVEN_COUNT, np.int64),
        holes=np.zeros(shape, np.bool_),
    )


def _filled(counts: Counts) -> Counts:
    """Nobody looked, which is not that nobody asked: a hole lies on the line between neighbours."""
    if not counts.holes.any():
        return counts
    values, rows = counts.counts.copy(), np.arange(len(counts.counts))
    for column in np.flatnonzero(counts.holes.any(axis=0)).tolist():
        seen = np.flatnonzero(~counts.holes[:, column])
        if len(seen):
            line = np.interp(rows, seen, counts.counts[seen, column])
            values[:, column] = np.rint(line).astype(np.int64)
    return Counts(
        start_us=counts.start_us,
        width_us=counts.width_us,
        streams=counts.streams,
        counts=values,
        holes=np.zeros_like(counts.holes),
    )


def _lengths(folder: Path) -> tuple[LengthTable, str]:
    """Azure's conversations of 2023, each prompt with its answer, else lognormal draws."""
    file = folder / LENGTHS_TRACE
    if file.is_file():
        found = read_trace(file)
        assert isinstance(found, Requests), "Azure's traces have a row per request"
        return (
            LengthTable(prompt_tokens=found.prompt_tokens, output_tokens=found.output_tokens),
            "azure 2023 conv",
        )
    prompt = PROMPT_TOKENS.draw(stream(0, "prompt lengths"), _LENGTH_ROWS)
    output = OUTPUT_TOKENS.draw(stream(0, "output lengths"), _LENGTH_ROWS)
    return LengthTable(prompt_tokens=prompt, output_tokens=output), GENERATED
