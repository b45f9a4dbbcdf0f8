"""The facts of one decision as a file, and back: what `warmtide plan` explains. Pure.

In: `Facts`, or the bytes of a record. Out: the same again, from which the same plan follows byte
for byte; or a `RecordError` that says which field, what is wrong and what to do. Never: reads a
file; writes what no decision reads, least of all secrets: tenants and their keys, the addresses,
arguments and sources of engines, announced events, where traces go.
"""

from collections.abc import Iterator
from typing import NoReturn

import msgspec

from placement.catalog import (
    Catalog,
    ForecastPolicy,
    Frozen,
    ModelId,
    ModelSpec,
    NodeId,
    TelemetryPolicy,
)
from placement.planning.demand import ModelDemand
from placement.planning.draft import Elastic, Facts, Going, Room
from placement.planning.outlook import Outlook
from placement.planning.resident import Residency
from placement.snapshot import ClusterSnapshot, NodeState

FORMAT = "warmtide-facts"
VERSION = 1

ANEW = "Record it anew: `warmtide plan --record FILE`, or `warmtide simulate ... --facts FILE`"


class RecordError(Exception):
    """No record that can be used. `field` is dotted, as `snapshot.nodes[0].seq`; empty: all."""

    def __init__(self, field: str, what: str, remedy: str) -> None:
        self.field = field
        self.what = what
        self.remedy = remedy
        super().__init__(f"{field}: {what}. {remedy}" if field else f"{what}. {remedy}")


class Resting(Frozen, frozen=True, kw_only=True):
    """A model that failed on a node, and until when it is not tried there again."""

    model_id: ModelId
    node_id: NodeId
    until_us: int


class Recorded(Frozen, frozen=True, kw_only=True):
    """`Facts` as they travel. `left` are models that left the catalog and are still placed."""

    format: str = FORMAT
    version: int = VERSION
    source: str
    """Where it was recorded, for people."""
    policy: str
    """Who decided there."""
    now_us: int
    snapshot: ClusterSnapshot
    catalog: Catalog
    left: tuple[ModelSpec, ...] = ()
    demand: dict[str, ModelDemand] = {}
    in_flight: dict[str, int] = {}
    resting: tuple[Resting, ...] = ()
    cleared_for: dict[str, str] = {}
    rooms: dict[str, Room] = {}
    excess_since_us: dict[str, int] = {}
    outlook: Outlook | None = None
    residency: Residency | None = None
    elastic: Elastic | None = None
    going: Going = Going()

    def facts(self) -> Facts:
        return Facts(
            snapshot=self.snapshot,
            catalog=self.catalog,
            models={m.id: m for m in (*self.catalog.models, *self.left)},
            demand=self.demand,
            in_flight=self.in_flight,
            blocked_until_us={(r.model_id, r.node_id): r.until_us for r in self.resting},
            cleared_for=self.cleared_for,
            rooms=self.rooms,
            excess_since_us=self.excess_since_us,
            outlook=self.outlook,
            residency=self.residency,
            elastic=self.elastic,
            going=self.going,
            now_us=self.now_us,
        )


class _Head(msgspec.Struct, frozen=True):
    """What is looked at before anything else is believed."""

    format: str = ""
    version: int = 0


def recorded(facts: Facts, *, source: str, policy: str) -> Recorded:
    left = [m for m in facts.models.values() if facts.catalog.model(m.id) is None]
    return Recorded(
        source=source,
        policy=policy,
        now_us=facts.now_us,
        snapshot=facts.snapshot,
        catalog=bare(facts.catalog),
        left=tuple(map(_bare_model, left)),
        demand=dict(facts.demand),
        in_flight=dict(facts.in_flight),
        resting=tuple(
            Resting(model_id=ModelId(model_id), node_id=NodeId(node_id), until_us=until_us)
            for (model_id, node_id), until_us in facts.blocked_until_us.items()
        ),
        cleared_for=dict(facts.cleared_for),
        rooms=dict(facts.rooms),
        excess_since_us=dict(facts.excess_since_us),
        outlook=facts.outlook,
        residency=facts.residency,
        elastic=facts.elastic,
        going=facts.going,
    )


def bare(catalog: Catalog) -> Catalog:
    """The catalog as far as decisions read it."""
    return msgspec.structs.replace(
        catalog,
        models=tuple(map(_bare_model, catalog.models)),
        tenants=(),
        telemetry=TelemetryPolicy(),
        forecast=ForecastPolicy(),
        vllm_python="",
    )


def _bare_model(spec: ModelSpec) -> ModelSpec:
    return msgspec.structs.replace(
        spec,
        source="",
        adapters=(),
        engine_args=(),
        endpoints=(),
        upstream_model="",
        api_key_env="",
    )


def written(record: Recorded) -> bytes:
    return msgspec.json.encode(record)


def read(data: bytes) -> Recorded:
    """The record in these bytes. Raises `RecordError`."""
    try:
        head = msgspec.json.decode(data, type=_Head)
        _check_head(head)
        record = msgspec.json.decode(data, type=Recorded)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        remedy = f"It was edited, or written by another version of Warmtide. {ANEW}"
        raise RecordError(field, what, remedy) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _unreadable(data, error)
    for problem in _contradictions(record):
        raise problem
    return record


def _check_head(head: _Head) -> None:
    if head.format != FORMAT:
        what = f"is {head.format[:40]!r}" if head.format else "is not there"
        remedy = f"A record of facts says {FORMAT!r} there: name one. {ANEW}"
        raise RecordError("format", what, remedy)
    if head.version != VERSION:
        what = f"is {head.version}, and this Warmtide reads version {VERSION}"
        newer = "Explain it with the newer Warmtide that wrote it, or upgrade this one"
        older = f"Explain it with the older Warmtide that wrote it. {ANEW}"
        raise RecordError("version", what, newer if head.version > VERSION else older)


def _unreadable(data: bytes, error: Exception) -> NoReturn:
    if not data.strip():
        raise RecordError("", "is empty", ANEW) from None
    if "truncated" in str(error):
        raise RecordError("", f"ends in the middle, after {len(data)} bytes", ANEW) from None
    raise RecordError("", f"is no JSON ({error})", ANEW) from None


def _contradictions(record: Recorded) -> Iterator[RecordError]:
    """What the schema allows and no cluster shows: it was edited."""
    seen: set[str] = set()
    for at, node in enumerate(record.snapshot.nodes):
        place = f"snapshot.nodes[{at}]"
        if node.node_id in seen:
            yield RecordError(f"{place}.node_id", f"{node.node_id} is there twice", ANEW)
        seen.add(node.node_id)
        spec = record.catalog.node(node.node_id)
        if spec is not None and [g.gpu_id for g in node.gpus] != list(range(spec.gpus)):
            what = f"are not GPUs 0 to {spec.gpus - 1}, as the catalog has them"
            yield RecordError(f"{place}.gpus", what, ANEW)
        yield from _of_replicas(place, node, seen)


def _of_replicas(place: str, node: NodeState, seen: set[str]) -> Iterator[RecordError]:
    there = {g.gpu_id for g in node.gpus}
    for at, replica in enumerate(node.replicas):
        field = f"{place}.replicas[{at}]"
        if replica.node_id != node.node_id:
            what = f"is {replica.node_id}, and it stands on {node.node_id}"
            yield RecordError(f"{field}.node_id", what, ANEW)
        if not there.issuperset(replica.gpu_ids):
            what = f"are {list(replica.gpu_ids)}, and the node has {sorted(there)}"
            yield RecordError(f"{field}.gpu_ids", what, ANEW)
        if (name := f"replica {replica.replica_id}") in seen:
            yield RecordError(f"{field}.replica_id", f"{replica.replica_id} is there twice", ANEW)
        seen.add(name)
