"""From what was asked to what will be sent: reads traces, picks slices, deals streams. An edge.

In: the command's options. Out: a trace, then a schedule with its own description.
Never: sends, copies a trace, falls back to generated demand without saying so.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loadtests.arrivals import (
    Caps,
    Lengths,
    Slice,
    Span,
    busiest,
    choose_models,
    cut,
    deal,
    schedule,
    volumes,
)
from loadtests.draws import ARRIVALS_CV, OUTPUT_TOKENS, PROMPT_TOKENS
from loadtests.errors import AskedError
from loadtests.generator import generate_counts
from loadtests.spans import span_us
from loadtests.target import Target
from loadtests.trace_places import GENERATED
from prewarm.traces.files import read_trace
from prewarm.traces.records import HOUR_US, US, Counts, Requests, Trace

LENGTHS_TRACE = Path("azure_llm_2023/AzureLLMInferenceTrace_conv.csv")


class Loaded(NamedTuple):
    """A trace with the name it goes by and where it came from."""

    name: str
    source: str
    trace: Trace
    lengths: Lengths | None
    lengths_from: str


class Asked(NamedTuple):
    """Which part of the trace, against which models."""

    start: str | None
    duration: str | None
    limit: int | None
    models: tuple[str, ...]
    named: Mapping[str, str]
    seed: int
    caps: Caps


class Work(NamedTuple):
    """A schedule ready to be sent, and how it came about."""

    schedule: Requests
    dealt: dict[str, str]
    span: Span
    held: int
    arrivals: str
    lengths: str
    notes: tuple[str, ...]


def named_models(pairs: Iterable[str]) -> dict[str, str]:
    """`c0=model` options to a mapping."""
    found: dict[str, str] = {}
    for pair in pairs:
        stream_name, equals, model = pair.partition("=")
        if not equals or not stream_name or not model:
            raise AskedError(f"--map {pair!r}: write stream=model, as in c0=llama-8b")
        if stream_name in found:
            raise AskedError(f"--map names the stream {stream_name!r} twice")
        found[stream_name] = model
    return found


def load(trace: str, seed: int) -> Loaded:
    """A trace file, or the word `generated`."""
    if trace == GENERATED:
        counts = generate_counts(seed)
        return Loaded(f"generated ({seed})", "our own seeded generator", counts, None, "")
    path = Path(trace)
    found = read_trace(path)
    lengths = _lengths_beside(path) if isinstance(found, Counts) else None
    told = f"drawn from {LENGTHS_TRACE.stem}" if lengths else ""
    return Loaded(path.name, "a real trace", found, lengths, told)


def _lengths_beside(path: Path) -> Lengths | None:
    """Azure's conversations, where the public traces lie together."""
    beside = path.resolve().parent.parent / LENGTHS_TRACE
    if not beside.is_file():
        return None
    found = read_trace(beside)
    assert isinstance(found, Requests), "Azure's traces have a row per request"
    return Lengths(found.prompt_tokens, found.output_tokens)


def slice_of(loaded: Loaded, asked: Asked) -> tuple[Span, Slice]:
    """The asked span, by default the busiest hour, cut out and thinned."""
    trace = loaded.trace
    duration_us = span_us(asked.duration, "--duration") if asked.duration else HOUR_US
    if duration_us <= 0:
        raise AskedError("--duration must be longer than nothing")
    if asked.start is None:
        span = busiest(trace, duration_us)
    else:
        start_us = span_us(asked.start, "--start")
        if start_us >= trace.duration_us:
            ends = f"{trace.duration_us / US:g} s"
            raise AskedError(f"--start {asked.start} lies behind the trace's end ({ends})")
        span = Span(start_us, min(duration_us, trace.duration_us - start_us))
    return span, cut(trace, span, asked.limit, asked.seed)


def prepare(loaded: Loaded, span: Span, found: Slice, asked: Asked, target: Target) -> Work:
    """Deal the slice's streams to the target's models and give every request its lengths."""
    models = choose_models(asked.models, asked.named.values(), target.models, target.dealt_to())
    target.check([*models, *asked.named.values()])
    dealt = deal(volumes(loaded.trace), models, asked.named)
    kept = found.kept
    ready = schedule(kept, dealt, asked.seed, asked.caps, loaded.lengths)
    return Work(
        schedule=ready,
        dealt=dealt,
        span=span,
        held=found.held,
        arrivals=_arrivals_told(loaded.trace, asked.limit, found),
        lengths=_lengths_told(loaded, kept, asked.caps),
        notes=_notes(loaded.trace, span, found),
    )


def _arrivals_told(trace: Trace, limit: int | None, found: Slice) -> str:
    times = (
        f"drawn in each bin by a Gamma renewal process, CV {ARRIVALS_CV:g}"
        if isinstance(trace, Counts)
        else "the trace's own"
    )
    thinned = limit is not None and limit < found.held
    return times + (f", thinned at random to {limit}" if thinned else "")


def _lengths_told(loaded: Loaded, kept: Requests, caps: Caps) -> str:
    capped = f"; prompt at most {caps.prompt_tokens}, answer {caps.output_tokens} tokens"
    if kept.prompt_tokens.any():
        longer = (kept.prompt_tokens > caps.prompt_tokens) | (
            kept.output_tokens > caps.output_tokens
        )
        return f"the trace's own, {int(np.count_nonzero(longer))} shortened" + capped
    drawn = (
        f"lognormal, mean {PROMPT_TOKENS.mean:g} sigma {PROMPT_TOKENS.sigma:g} and "
        f"mean {OUTPUT_TOKENS.mean:g} sigma {OUTPUT_TOKENS.sigma:g}"
    )
    return (loaded.lengths_from or drawn) + capped


def _notes(trace: Trace, span: Span, found: Slice) -> tuple[str, ...]:
    """What the reader should know of the slice beside its figures."""
    if not found.held:
        return ("the slice holds no request",)
    if isinstance(trace, Requests):
        return ()
    first = span.start_us // trace.width_us
    last = -(-(span.start_us + span.duration_us) // trace.width_us)
    holes = int(np.count_nonzero(trace.holes[first:last]))
    return (f"{holes} bins of the slice are holes: nothing was sent for them",) if holes else ()
