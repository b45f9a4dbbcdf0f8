"""The edge table as people read it: `docs/rungs.md`. Pure.

In: nothing but the table itself and two models to show it for. Out: Markdown. Never: computes a
figure of its own; a test keeps the page and the table the same.
"""

from collections.abc import Iterator

from placement.catalog import EngineKind, Mechanism, ModelId, ModelSpec, World
from placement.edges import edge_us, legal_starts, legal_steps, start_edge, step_edge
from placement.edges.rows import GB, Edge
from placement.snapshot import WeightsAt


def _shown(world: World) -> tuple[ModelSpec, ModelSpec]:
    """An 8B on one GPU of 80 GB, and a 70B over four. In W the KV cache fills the GPU."""
    kv_gb = (10, 10) if world is World.S else (54, 35)
    small = ModelSpec(
        id=ModelId("8B"),
        engine=EngineKind.EMULATED,
        weights_bytes=int(16.1 * GB),
        layers=32,
        kv_cache_bytes=kv_gb[0] * GB,
        residue_bytes=int(0.8 * GB),
        mechanism=Mechanism(world=world),
    )
    large = ModelSpec(
        id=ModelId("70B over 4 GPUs"),
        engine=EngineKind.EMULATED,
        weights_bytes=141 * GB,
        layers=80,
        gpus=4,
        kv_cache_bytes=kv_gb[1] * GB,
        residue_bytes=int(2.4 * GB),
        mechanism=Mechanism(world=world),
    )
    return small, large


def edges_of(spec: ModelSpec) -> list[Edge]:
    """Every row that a model has: starts from wherever its weights lie, then steps."""
    starts = [start_edge(spec, at, to) for to in legal_starts(spec) for at in WeightsAt]
    return starts + [step_edge(spec, at, to) for at, to in sorted(legal_steps(spec))]


def page() -> str:
    lines = [*_HEAD]
    for world, told in ((World.S, _STOCK), (World.W, _SHARED)):
        lines += [f"## World {world}", "", *told, ""]
        for spec in _shown(world):
            lines += [*_table(spec), ""]
        lines += ["Sources, behind their grades:", "", *_sources(_shown(world)[1]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(spec: ModelSpec) -> Iterator[str]:
    weights, kv_cache = spec.weights_bytes / GB, spec.kv_cache_bytes / GB
    yield f"**{spec.id}**, {weights:g} GB of weights, {kv_cache:g} GB of KV cache on each GPU:"
    yield ""
    yield "| from | to | s | of it fixed | GB over links | GB held per GPU | host GB | needs |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for edge in edges_of(spec):
        links = ", ".join(f"{k} {v / GB:.1f}" for k, v in edge.bytes_by_link.items())
        needs = [p.replace("_", " ") for p in edge.preconditions]
        needs += ["GPU to itself"] if edge.exclusive_gpu else []
        cells = (
            edge.at,
            edge.to,
            f"{edge_us(edge) / 1e6:.2f}",
            f"{edge.fixed_us / 1e6:.2f}",
            links or "none",
            f"{edge.held_gpu_bytes / GB:.1f}",
            f"{edge.held_host_bytes / GB:.1f}",
            ", ".join(needs),
        )
        yield f"| {' | '.join(cells)} |"


def _sources(spec: ModelSpec) -> Iterator[str]:
    found = dict.fromkeys(s for edge in edges_of(spec) for s in edge.source.split("; "))
    yield from (f"- {source}" for source in found)


_HEAD = (
    "# Rungs and what it costs to change them",
    "",
    "Written from the edge table (`placement/edges`) by `make rungs`; planner, agent's ledger,",
    "emulated engines and simulator read the same rows. Seconds are those of an idle node;",
    "transfers share its links. Held bytes are the most that a transition holds before it ends.",
    "Every constant stands with grade and source in `placement/constants.py`: A authors' own, B",
    "measured by others with a named set-up, C anecdote, D derived, M general knowledge. None",
    "replaces a calibration on the fleet at hand.",
    "",
)
_STOCK = (
    "Stock vLLM: sleep levels 1 (parked) and 2 (shed), a wake by tag, an engine tied to its GPUs",
    "for life. Parked → shed is no edge: vLLM answers 200 and does nothing. A sleeper keeps a",
    "residue on its GPUs; its pinned host memory is rounded up to a power of two for each rank.",
)
_SHARED = (
    "WarmServe's mechanism: one pinned copy of every model per node, shared by all its GPUs, and",
    "engines forked ahead, which take any model on any GPU set. A warm replica is its weights on",
    "its GPUs and nothing else; a serving one owns its GPUs wholly. Loads take turns on a GPU and",
    "can be cancelled. For simulation only.",
)
