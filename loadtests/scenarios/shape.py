"""A scenario file's own shape: strict keys, human units, a sentence for every key. Pure.

In: plain data as TOML gave it. Out: `ScenarioFile`, or a `ScenarioError` that names file and key.
Never: reads a file, knows a trace, checks that a model fits a node (the catalog's checks do).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from loadtests.errors import AskedError
from loadtests.simulator.port import Forecast
from placement.catalog_explain import explain
from placement.catalog_fields import Entry, Name, Share, TimeUs
from placement.catalog_problems import closest, dotted
from placement.catalog_shape import ModelEntry, NodeEntry, PolicyEntry, SloEntry

Hour = Literal["busiest", "quietest"]
Cv = float | Literal["original"]
Positive = Annotated[float, Field(gt=0, le=1e9)]


class ScenarioError(AskedError):
    """A scenario file that cannot be used: which file, which key, what to do."""


class ShapeEntry(ModelEntry):
    """What models of one kind have in common, as in a catalog; ids and SLOs are given elsewhere."""

    id: Name = "shape"
    engine: Literal["emulated"] = "emulated"
    slo: SloEntry = SloEntry()


class ModelsEntry(Entry):
    """One model, or `count` alike, whose ids get a number from 0 appended."""

    id: Name
    shape: str
    """A key of `shapes`."""
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    stream: str | None = None
    """The stream of the trace that it takes, as `m-large/c61`; by default the busiest left."""
    released: TimeUs | None = None
    """Nobody asks for it before this moment of the slice, nor in the days before."""


class LoadEntry(Entry):
    """Thinned until the mean and the peak bin are at most these shares of serving capacity."""

    mean: Share
    peak: Annotated[float, Field(gt=0, le=10)]
    gpus: Annotated[int, Field(ge=1)] | None = None
    """Shares of what so many GPUs can serve; by default all of `nodes`. With it the same demand can
    be put before another fleet."""


class DemandEntry(Entry):
    """Where the requests come from and how many there are."""

    source: Literal["servegen m-large", "servegen m-large + m-small", "constant"]
    """The trace; our seeded generator stands in for one that is not at hand, and output says so."""
    shares: Literal["volume", "zipf"]
    """How models share the demand: as their streams do, or model k by (k+1)^-alpha."""
    load: LoadEntry | None = None
    """How much there is. Without it `rps` of the cell: the mean over the slice, or over its first
    hour if the slice is shorter."""
    prompt_max: Annotated[int, Field(ge=1)] = 1024
    """Longer prompts are cut."""
    output_min: Annotated[int, Field(ge=1)] = 3
    output_max: Annotated[int, Field(ge=1)] = 1023


class SliceEntry(Entry):
    """Which part of the trace is run. Days count from 1."""

    day: Annotated[int, Field(ge=1, le=400)]
    hour: Annotated[int, Field(ge=0, le=23)] = 0
    """Where no cell says `busiest` or `quietest`."""
    duration: TimeUs
    past_days: Annotated[int, Field(ge=0, le=400)]
    """Days before that one which a policy may learn from."""
    warmup: TimeUs = 60_000_000
    """Time before the first request, in which a policy may already act."""


class ChangeEntry(Entry):
    """From `at` on, for `lasts`, a model is asked otherwise. The days before know nothing of it."""

    model: Name
    at: TimeUs
    lasts: TimeUs
    times: Annotated[float, Field(ge=0, le=10_000)] = 1.0
    """As much as usual, times this."""
    plus_rps: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """And so many requests a second more."""


class NodeEventEntry(Entry):
    """A node comes or goes. One that joins is absent before."""

    node: str
    at: TimeUs
    kind: Literal["join", "lost"]


class ElasticEntry(Entry):
    """Nodes may be launched and given back."""

    lead: TimeUs
    nodes_min: Annotated[int, Field(ge=1)]
    idle: TimeUs


class CellEntry(Entry):
    """One place on the grid. Keys that a scenario does not vary are left out."""

    rps: Positive | None = None
    alpha: Annotated[float, Field(ge=0, le=10)] | None = None
    cv: Cv | None = None
    """`original`: drawn within each bin of the trace. Else every gap is drawn anew."""
    hour: Hour | None = None


class GridEntry(Entry):
    """Values that are tried, each with each."""

    rps: list[Positive] = []
    alpha: list[float] = []
    cv: list[Cv] = []
    hour: list[Hour] = []


class SizeEntry(Entry):
    """Another size of the same question, asked for with `--size`."""

    nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    duration: TimeUs | None = None
    rps: Positive | None = None


class ScenarioFile(Entry):
    """A question to a simulated cluster."""

    question: Annotated[str, Field(min_length=10)]
    nodes: Annotated[list[NodeEntry], Field(min_length=1)]
    shapes: Annotated[dict[str, ShapeEntry], Field(min_length=1)]
    models: Annotated[list[ModelsEntry], Field(min_length=1)]
    slo: SloEntry
    policy: PolicyEntry = PolicyEntry()
    demand: DemandEntry
    slice: SliceEntry
    cell: CellEntry = CellEntry()
    """What is run if nothing else is asked for."""
    grid: GridEntry = GridEntry()
    quick: list[CellEntry] = []
    """Cells of `--quick`; by default `cell` alone."""
    sizes: dict[str, SizeEntry] = {}
    changes: list[ChangeEntry] = []
    node_events: list[NodeEventEntry] = []
    elastic: ElasticEntry | None = None
    forecast: Forecast = "learned"
    """What a policy that forecasts goes by: what the days before teach, or for the sake of the
    question `inverted` (much where little comes, and the reverse) or `perfect`."""


def parse_scenario(data: dict[str, Any], file: str) -> ScenarioFile:
    try:
        found = ScenarioFile.model_validate(data)
    except ValidationError as error:
        raise ScenarioError("\n".join(_told(error, file))) from None
    if problems := list(_cross_checks(found)):
        raise ScenarioError("\n".join(f"{file}: {problem}" for problem in problems))
    return found


def _told(error: ValidationError, file: str) -> Iterator[str]:
    unknown = {e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"}
    for finding in explain(error):
        remedy = _known_keys(finding.path) if finding.path in unknown else finding.remedy
        yield f"{file}: {dotted(finding.path)}: {finding.what}. {remedy}"


def _known_keys(path: tuple[str | int, ...]) -> str:
    """What an unknown key may have meant, by the entry in which it stands."""
    entry = _entry_at(path[:-1])
    if entry is None:
        return "Remove it"
    near = closest(str(path[-1]), entry.model_fields)
    known = ", ".join(sorted(entry.model_fields))
    return f"Did you mean `{near}`?" if near else f"Remove it. Known here: {known}"


_PLACES: dict[str, type[Entry]] = {
    "": ScenarioFile,
    "nodes": NodeEntry,
    "shapes": ShapeEntry,
    "models": ModelsEntry,
    "slo": SloEntry,
    "policy": PolicyEntry,
    "demand": DemandEntry,
    "demand.load": LoadEntry,
    "slice": SliceEntry,
    "cell": CellEntry,
    "grid": GridEntry,
    "quick": CellEntry,
    "sizes": SizeEntry,
    "changes": ChangeEntry,
    "node_events": NodeEventEntry,
    "elastic": ElasticEntry,
}


def _entry_at(path: tuple[str | int, ...]) -> type[Entry] | None:
    named = [part for part in path if isinstance(part, str)]
    if named and named[0] in ("shapes", "sizes"):
        del named[1:2]  # the name that the file itself gives
    return _PLACES.get(".".join(named))


def _cross_checks(file: ScenarioFile) -> Iterator[str]:
    """What one entry says of another."""
    for i, entry in enumerate(file.models):
        if entry.shape not in file.shapes:
            known = ", ".join(file.shapes)
            yield f"models[{i}].shape: no shape {entry.shape!r}. Write one of {known}"
    ids = model_ids(file)
    if doubled := sorted({name for name in ids if ids.count(name) > 1}):
        yield f"models: {', '.join(doubled)} named twice. Give each model an id of its own"
    for i, change in enumerate(file.changes):
        if change.model not in ids:
            yield f"changes[{i}].model: no model {change.model!r}. Write one of the models' ids"
    if (file.cell.rps is None) == (file.demand.load is None):
        yield "demand.load: give either it or cell.rps, for one of them says how much is asked"
    if (file.demand.shares == "zipf") != (file.cell.alpha is not None):
        yield "cell.alpha: goes with demand.shares = 'zipf', and only with it"
    if file.slice.past_days >= file.slice.day:
        yield f"slice.past_days: at most {file.slice.day - 1} days lie before day {file.slice.day}"
    yield from _grid_checks(file)


def _grid_checks(file: ScenarioFile) -> Iterator[str]:
    """A cell must say everything that the scenario varies, and nothing else."""
    varied = keys_of(file.cell)
    for key in GridEntry.model_fields:
        if getattr(file.grid, key) and key not in varied:
            yield f"grid.{key}: is varied, but `cell` has no {key}. Add one"
    for i, cell in enumerate(file.quick):
        if keys_of(cell) != varied:
            yield f"quick[{i}]: must give {', '.join(varied) or 'nothing'}, as `cell` does"


def keys_of(cell: CellEntry) -> list[str]:
    return [key for key in CellEntry.model_fields if getattr(cell, key) is not None]


def model_ids(file: ScenarioFile) -> list[str]:
    return [name for entry in file.models for name in ids_of(entry)]


def ids_of(entry: ModelsEntry) -> list[str]:
    if entry.count is None:
        return [entry.id]
    return [f"{entry.id}{n}" for n in range(entry.count)]
