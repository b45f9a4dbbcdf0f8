"""A scenario, a cell of its grid, a world and a seed: everything one run is set up from. Pure.

In: `ScenarioFile`, `Traced` demand, what was asked. Out: a `port.Setup`, with what was decided on
the way (`Built`). Never: reads a file, draws (demand draws when it is read), runs anything.

In world W a serving replica owns its GPUs wholly: its KV cache is what the weights leave free. In
world S the file's `kv_cache` holds, for there the room beside it is where neighbours stay warm.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from loadtests.draws import Floats, Ints
from loadtests.errors import AskedError
from loadtests.scenarios.capacity import gpu_seconds
from loadtests.scenarios.demand import Change, LengthTable, ShapedDemand, Traced
from loadtests.scenarios.level import Level, LoadGoal, by_load, by_rate, never_silent, zipf_shares
from loadtests.scenarios.shape import CellEntry, ScenarioFile, ids_of, keys_of, model_ids
from loadtests.simulator.port import Elastic, NodeEvent, NodeEventKind, Setup
from placement.catalog import Catalog, Mechanism, ModelSpec, NodeSpec, World
from placement.catalog_convert import model_spec, node_specs, policy
from placement.catalog_shape import FleetEntry
from placement.edges import footprint_bytes
from placement.feasibility import usable_hbm_bytes
from prewarm.traces.records import DAY_US, HOUR_US, Counts

REQUESTS_PER_BIN_MAX = 5_000_000
REQUESTS_MAX = 100_000_000
"""About 2.5 GB of results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which run of a scenario: a cell of its grid, a world, a seed."""

    cell: CellEntry
    world: World
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A setup, and what people should know of how it came about."""

    setup: Setup
    level: dict[str, float | str]
    notes: tuple[str, ...]


def build(name: str, file: ScenarioFile, traced: Traced, wanted: Wanted) -> Built:
    """Everything a run depends on."""
    catalog = catalog_of(file, wanted.world)
    columns, notes = _columns(file, traced.counts)
    counts = _dealt(traced.counts, columns)
    where = _slice(file, traced.counts, counts, wanted)
    table = _bounded(traced.lengths, file)
    level = _level(file, catalog, traced.counts.width_us, counts, where, table, wanted.cell)
    _check_size(level.scaled[where.rows(traced.counts.width_us, where.duration_us)])
    ids = tuple(model_ids(file))
    demand = ShapedDemand(
        models=ids,
        start_us=traced.counts.start_us + where.start_us,
        duration_us=where.duration_us,
        past_days=where.past_days,
        origin_us=traced.counts.start_us,
        width_us=traced.counts.width_us,
        expected=level.scaled,
        lengths=table,
        seed=wanted.seed,
        cv=wanted.cell.cv if isinstance(wanted.cell.cv, float) else None,
        changes=_changes(file, where.duration_us),
        unborn=tuple(i for i, at in enumerate(_released(file)) if at is not None),
    )
    setup = Setup(
        scenario=name,
        world=wanted.world,
        seed=wanted.seed,
        catalog=catalog,
        demand=demand,
        warmup_us=file.slice.warmup,
        node_events=_node_events(file),
        elastic=_elastic(file),
        forecast=file.forecast,
        labels={key: getattr(wanted.cell, key) for key in keys_of(wanted.cell)},
    )
    notes = (*notes, *_notes(file, traced, where))
    return Built(setup=setup, level=level.level.told, notes=notes)


def _check_size(expected: Floats) -> None:
    """A bin is drawn at once, and every request's fate is kept: refuse what would not fit."""
    bin_max, total = float(expected.sum(axis=1).max()), float(expected.sum())
    if bin_max > REQUESTS_PER_BIN_MAX or total > REQUESTS_MAX:
        raise AskedError(
            f"this cell asks for {total:.2g} requests, {bin_max:.2g} of them in one bin of the "
            f"trace; at most {REQUESTS_MAX:.0e} and {REQUESTS_PER_BIN_MAX:.0e} are run: ask for "
            "a lower rate or load, or for a shorter --duration"
        )


def _notes(file: ScenarioFile, traced: Traced, where: "_Slice") -> Iterator[str]:
    if traced.holes:
        yield f"{traced.holes} unmeasured bins were filled in between their neighbours"
    if where.duration_us < file.slice.duration:
        yield f"the trace ends {where.duration_us / HOUR_US:g} h after the slice's start"
    if where.past_days < file.slice.past_days:
        yield f"the trace holds {where.past_days} days before the slice"


# --- the cluster


def catalog_of(file: ScenarioFile, world: World) -> Catalog:
    """Models and nodes of a scenario in one world."""
    fleet = FleetEntry(nodes=file.nodes)
    nodes = tuple(spec for entry in file.nodes for spec in node_specs(entry))
    specs = []
    for entry in file.models:
        shape = file.shapes[entry.shape].model_copy(update={"slo": file.slo})
        for model_id in ids_of(entry):
            spec = model_spec(shape.model_copy(update={"id": model_id}), fleet)
            specs.append(_in_world(spec, nodes, world))
    catalog = Catalog(version="", models=tuple(specs), nodes=nodes, policy=policy(file.policy))
    digest = hashlib.sha256(msgspec.json.encode(catalog)).hexdigest()
    return msgspec.structs.replace(catalog, version=digest[:12])


def _in_world(spec: ModelSpec, nodes: tuple[NodeSpec, ...], world: World) -> ModelSpec:
    moved = msgspec.structs.replace(spec, mechanism=Mechanism(world=world))
    if world is World.S:
        return moved
    bare = msgspec.structs.replace(moved, kv_cache_bytes=0)
    usable = min(usable_hbm_bytes(node.hbm_bytes) for node in nodes)
    room = usable - footprint_bytes(bare)
    if room <= 0:
        raise AskedError(f"shapes: {spec.id} leaves no room for a KV cache; give it more GPUs")
    return msgspec.structs.replace(moved, kv_cache_bytes=room)


def _node_events(file: ScenarioFile) -> tuple[NodeEvent, ...]:
    known = {spec.id for entry in file.nodes for spec in node_specs(entry)}
    found = []
    for i, event in enumerate(file.node_events):
        if event.node not in known:
            names = ", ".join(sorted(known))
            raise AskedError(f"node_events[{i}].node: no node {event.node!r}; there are {names}")
        kind = NodeEventKind[event.kind.upper()]
        # Times of a file are of the slice; the world's clock starts with the warm-up.
        at_us = file.slice.warmup + event.at
        found.append(NodeEvent(at_us=at_us, node_id=event.node, kind=kind))
    return tuple(sorted(found, key=lambda event: event.at_us))


def _elastic(file: ScenarioFile) -> Elastic | None:
    if file.elastic is None:
        return None
    return Elastic(
        lead_us=file.elastic.lead, nodes_min=file.elastic.nodes_min, idle_us=file.elastic.idle
    )


# --- the demand


def _columns(file: ScenarioFile, counts: Counts) -> tuple[list[int | None], tuple[str, ...]]:
    """For each model its column: the stream it names if the trace has it, else the busiest left.

    None where the trace has no stream left: nobody asks for that model.
    """
    places = {name: i for i, name in enumerate(counts.streams)}
    named = [entry.stream for entry in file.models for _ in ids_of(entry)]
    found: list[int | None] = [places.get(name) if name else None for name in named]
    taken = set(found)
    totals = counts.counts.sum(axis=0)
    left = iter([i for i in np.argsort(-totals, kind="stable").tolist() if i not in taken])
    found = [next(left, None) if place is None else place for place in found]
    silent = found.count(None)
    if not silent:
        return found, ()
    note = f"the trace has {len(counts.streams)} streams: {silent} of the models are never asked"
    return found, (note,)


def _dealt(counts: Counts, columns: list[int | None]) -> Ints:
    dealt: Ints = np.zeros((len(counts.counts), len(columns)), np.int64)
    for model, column in enumerate(columns):
        if column is not None:
            dealt[:, model] = counts.counts[:, column]
    return dealt


@dataclass(frozen=True, slots=True)
class _Slice:
    """From the trace's start, in whole bins of days and hours."""

    start_us: int
    duration_us: int
    past_days: int

    def rows(self, width_us: int, length_us: int) -> slice:
        return slice(self.start_us // width_us, -(-(self.start_us + length_us) // width_us))


def _slice(file: ScenarioFile, trace: Counts, counts: Ints, wanted: Wanted) -> _Slice:
    """The asked day, or a shorter trace's last; its hour by the sum of all models."""
    days = max(trace.duration_us // DAY_US, 1)
    day = min(file.slice.day, days) - 1
    hour = file.slice.hour
    if wanted.cell.hour is not None:
        hour = _hour(trace, counts, day, quietest=wanted.cell.hour == "quietest")
    start_us = day * DAY_US + hour * HOUR_US
    left_us = trace.duration_us - start_us
    if left_us <= 0:
        raise AskedError(f"the trace ends before hour {hour} of day {day + 1}; give a longer one")
    return _Slice(start_us, min(file.slice.duration, left_us), min(file.slice.past_days, day))


def _hour(trace: Counts, counts: Ints, day: int, *, quietest: bool) -> int:
    if HOUR_US % trace.width_us:
        raise AskedError(
            "finding the busiest hour needs bins that divide an hour; this trace's do not"
        )
    per_hour, per_day = HOUR_US // trace.width_us, DAY_US // trace.width_us
    sums = counts[day * per_day : (day + 1) * per_day].sum(axis=1)
    hours = sums[: len(sums) // per_hour * per_hour].reshape(-1, per_hour).sum(axis=1)
    if not len(hours):
        raise AskedError("the trace is shorter than an hour")
    return int(hours.argmin() if quietest else hours.argmax())


@dataclass(frozen=True, slots=True)
class _Scaled:
    level: Level
    scaled: Floats


def _level(
    file: ScenarioFile,
    catalog: Catalog,
    width_us: int,
    counts: Ints,
    where: _Slice,
    table: LengthTable,
    cell: CellEntry,
) -> _Scaled:
    """Expected requests per bin and model."""
    silent = counts.sum(axis=0) == 0
    if silent.all():
        raise AskedError("the trace asks for nothing at all; give one with requests in it")
    shares = _shares(cell, counts)
    if file.demand.load is None:
        assert cell.rps is not None, "checked when the file was parsed"
        rows = where.rows(width_us, max(where.duration_us, HOUR_US))
        patched = counts.astype(np.float64)
        patched[rows] = never_silent(counts[rows])
        level = by_rate(patched[rows], width_us, cell.rps, np.where(silent, 0.0, shares))
        return _Scaled(level, patched * level.factors)
    mean = counts.mean(axis=0)
    weights = np.ones(len(shares))
    if file.demand.shares == "zipf":
        weights = np.divide(shares, mean, out=np.zeros(len(mean)), where=mean > 0)
    reference = counts[where.past_days * DAY_US // width_us :]
    goal = LoadGoal(mean=file.demand.load.mean, peak=file.demand.load.peak)
    gpus = file.demand.load.gpus or sum(node.gpus for node in catalog.nodes)
    exact = reference.astype(np.float64)
    level = by_load(exact, width_us, weights, costs_s(catalog, table), gpus, goal)
    return _Scaled(level, counts * level.factors)


def _shares(cell: CellEntry, counts: Ints) -> Floats:
    if cell.alpha is not None:
        return zipf_shares(counts.shape[1], cell.alpha)
    totals = counts.sum(axis=0).astype(np.float64)
    shares: Floats = totals / totals.sum()
    return shares


def costs_s(catalog: Catalog, table: LengthTable) -> Floats:
    """GPU-seconds of a mean request, per model."""
    prompt, output = float(table.prompt_tokens.mean()), float(table.output_tokens.mean())
    gpu_type = catalog.nodes[0].gpu_type
    return np.array([gpu_seconds(spec, gpu_type, prompt, output) for spec in catalog.models])


def _bounded(lengths: LengthTable, file: ScenarioFile) -> LengthTable:
    asked = file.demand
    return LengthTable(
        prompt_tokens=np.clip(lengths.prompt_tokens, 1, asked.prompt_max),
        output_tokens=np.clip(lengths.output_tokens, asked.output_min, asked.output_max),
    )


def _released(file: ScenarioFile) -> list[int | None]:
    return [entry.released for entry in file.models for _ in ids_of(entry)]


def _changes(file: ScenarioFile, duration_us: int) -> tuple[Change, ...]:
    """Those of the file, and silence until a model is released."""
    places = {name: i for i, name in enumerate(model_ids(file))}
    found = [
        Change(
            model=places[change.model],
            start_us=change.at,
            stop_us=min(change.at + change.lasts, duration_us),
            times=change.times,
            plus_rps=change.plus_rps,
        )
        for change in file.changes
    ]
    found += [
        Change(model=model, start_us=0, stop_us=at, times=0.0)
        for model, at in enumerate(_released(file))
        if at is not None
    ]
    return tuple(found)
