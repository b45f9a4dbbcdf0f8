"""A trace to a schedule: which request, when, to which model, how long. Pure and seeded.

In: `Counts` or `Requests`, a slice, a limit, streams dealt to models, a seed. Out: `Requests`
whose streams are models and whose times start at 0. Never: reads a file or a clock, sends.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loadtests.draws import OUTPUT_TOKENS, PROMPT_TOKENS, Ints, renewal_within, stream
from loadtests.errors import AskedError
from prewarm.traces.records import Counts, Requests, Trace


class Span(NamedTuple):
    """A slice of a trace: offset from its start, and length."""

    start_us: int
    duration_us: int


def busiest(trace: Trace, duration_us: int) -> Span:
    """The busiest slice of that length, the earliest of equals; a shorter trace is taken whole."""
    if trace.duration_us <= duration_us:
        return Span(0, trace.duration_us)
    if isinstance(trace, Counts):
        bins = max(1, duration_us // trace.width_us)
        sums = np.concatenate(([0], np.cumsum(trace.counts.sum(axis=1))))
        return Span(int(np.argmax(sums[bins:] - sums[:-bins])) * trace.width_us, duration_us)
    ends = np.searchsorted(trace.at_us, trace.at_us + duration_us, side="left")
    first = int(np.argmax(ends - np.arange(len(trace))))
    latest = trace.duration_us - duration_us
    return Span(min(int(trace.at_us[first]) - trace.start_us, latest), duration_us)


def volumes(trace: Trace) -> dict[str, int]:
    """Requests per stream over the whole trace, so that a deal does not depend on the slice."""
    if isinstance(trace, Counts):
        totals = trace.counts.sum(axis=0)
    else:
        totals = np.bincount(trace.stream, minlength=len(trace.streams))
    return dict(zip(trace.streams, totals.tolist(), strict=True))


def deal(
    streams: Mapping[str, int], models: Sequence[str], named: Mapping[str, str]
) -> dict[str, str]:
    """`named` streams go where it says, those that bear a model's name (an exported history has
    them) to that model, the rest by volume, round-robin to `models` in their order."""
    check_streams(named, streams)
    if set(streams) - set(named) and not models:
        raise AskedError("no model is left to replay against: name one with --models or --map")
    placed = {name: name for name in streams if name in models} | dict(named)
    by_volume = sorted((s for s in streams if s not in placed), key=lambda name: -streams[name])
    return placed | {name: models[i % len(models)] for i, name in enumerate(by_volume)}


def check_streams(named: Iterable[str], streams: Iterable[str]) -> None:
    """Every stream named by `--map` must be one of the trace's."""
    known = list(streams)
    for name in named:
        _known(name, known, "stream", "the trace")


def choose_models(
    wanted: Sequence[str], named: Iterable[str], known: Sequence[str], default: Sequence[str]
) -> list[str]:
    """The models to deal to, in catalog order; every name must be one the fleet serves."""
    for name in (*wanted, *named):
        _known(name, known, "model", "the fleet")
    return [name for name in known if name in wanted] if wanted else list(default)


def _known(name: str, known: Iterable[str], kind: str, where: str) -> None:
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
    more = f" (of {len(names)})" if len(near) < len(names) else ""
    raise AskedError(f"{where} has no {kind} {name!r}; it has {', '.join(near)}{more}")


class Slice(NamedTuple):
    """What a slice held, and what was kept of it."""

    held: int
    kept: Requests


def cut(trace: Trace, span: Span, limit: int | None, seed: int) -> Slice:
    """The requests of a slice, times from 0, thinned at random to `limit` if it holds more."""
    if isinstance(trace, Counts):
        return _cut_counts(trace, span, limit, seed)
    start, stop = (trace.start_us + span.start_us + edge for edge in (0, span.duration_us))
    first, last = np.searchsorted(trace.at_us, (start, stop), side="left").tolist()
    kept = trace.rows(first + _thinned(last - first, limit, seed))
    return Slice(last - first, _shifted(kept, start))


def _thinned(held: int, limit: int | None, seed: int) -> Ints:
    """Which of `held` requests stay: ascending, each equally likely, never simply the first."""
    if limit is None or limit >= held:
        return np.arange(held)
    return np.sort(stream(seed, "thinning").choice(held, limit, replace=False, shuffle=False))


def _shifted(requests: Requests, start_us: int) -> Requests:
    return Requests(
        start_us=0,
        at_us=requests.at_us - start_us,
        streams=requests.streams,
        stream=requests.stream,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        prefix_blocks=requests.prefix_blocks,
        block_tokens=requests.block_tokens,
    )


def _cut_counts(trace: Counts, span: Span, limit: int | None, seed: int) -> Slice:
    """Thin the counts, then draw the times, so that the clumps survive the thinning."""
    first = span.start_us // trace.width_us
    last = min(len(trace.counts), -(-(span.start_us + span.duration_us) // trace.width_us))
    cells = _in_span(trace, span, first, last, seed)
    held = int(cells.sum())
    if limit is not None and limit < held:
        ends = np.cumsum(cells)
        chosen = np.searchsorted(ends, _thinned(held, limit, seed), side="right")
        cells = np.bincount(chosen, minlength=cells.size).reshape(cells.shape)
    times: list[Ints] = []
    columns: list[Ints] = []
    for column in np.flatnonzero(cells.any(axis=0)).tolist():
        rng = stream(seed, f"arrivals/{trace.streams[column]}")
        for row in np.flatnonzero(cells[:, column]).tolist():
            start, width = _overlap(trace, span, first + row)
            moments = renewal_within(rng, int(cells[row, column]))
            times.append((moments * width).astype(np.int64) + start)
            columns.append(np.full(len(moments), column, np.int64))
    at_us = np.concatenate(times) if times else np.zeros(0, np.int64)
    of_stream = np.concatenate(columns) if columns else np.zeros(0, np.int64)
    order = np.lexsort((of_stream, at_us))
    nothing = np.zeros(len(order), np.int64)
    kept = Requests(
        start_us=0,
        at_us=at_us[order],
        streams=trace.streams,
        stream=of_stream[order],
        prompt_tokens=nothing,
        output_tokens=nothing,
    )
    return Slice(held, kept)


def _overlap(trace: Counts, span: Span, row: int) -> tuple[int, int]:
    """Where a bin's part inside the span starts, from the span's start, and how wide it is."""
    start = max(row * trace.width_us, span.start_us)
    stop = min((row + 1) * trace.width_us, span.start_us + span.duration_us)
    return start - span.start_us, stop - start


def _in_span(trace: Counts, span: Span, first: int, last: int, seed: int) -> Ints:
    """The counts of the bins in the span; of a bin half inside, a drawn half."""
    cells = trace.counts[first:last].copy()
    for row in {0, len(cells) - 1} if len(cells) else ():
        share = _overlap(trace, span, first + row)[1] / trace.width_us
        if share < 1:
            edge = stream(seed, f"edge/{first + row}")
            cells[row] = edge.binomial(cells[row], share)
    return cells


class Caps(NamedTuple):
    """The longest prompt and answer that a replay asks for."""

    prompt_tokens: int = PROMPT_TOKENS.cap
    output_tokens: int = OUTPUT_TOKENS.cap


DEFAULT_CAPS = Caps()


class Lengths(NamedTuple):
    """Lengths to draw from where a trace tells none, each row a real prompt with its answer."""

    prompt_tokens: Ints
    output_tokens: Ints


def schedule(
    requests: Requests,
    dealt: Mapping[str, str],
    seed: int,
    caps: Caps = DEFAULT_CAPS,
    lengths: Lengths | None = None,
) -> Requests:
    """Streams become models; lengths are the trace's, or drawn, and capped either way."""
    models = list(dict.fromkeys(dealt.values()))
    to_model = np.array([models.index(dealt[name]) for name in requests.streams], np.int64)
    prompt, output = requests.prompt_tokens, requests.output_tokens
    if not prompt.any():
        prompt, output = _drawn_lengths(len(requests), seed, lengths)
    return Requests(
        start_us=0,
        at_us=requests.at_us,
        streams=tuple(models),
        stream=to_model[requests.stream],
        prompt_tokens=np.clip(prompt, 1, caps.prompt_tokens),
        output_tokens=np.clip(output, 1, caps.output_tokens),
        prefix_blocks=requests.prefix_blocks,
        block_tokens=requests.block_tokens,
    )


def _drawn_lengths(count: int, seed: int, lengths: Lengths | None) -> tuple[Ints, Ints]:
    if lengths is not None:
        rows = stream(seed, "lengths").integers(len(lengths.prompt_tokens), size=count)
        return lengths.prompt_tokens[rows], lengths.output_tokens[rows]
    return (
        PROMPT_TOKENS.draw(stream(seed, "prompt lengths"), count),
        OUTPUT_TOKENS.draw(stream(seed, "output lengths"), count),
    )
