"""Facts of a decision as a file and back: all that decides is kept, and nothing secret goes in."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.catalog import (
    Adapter,
    DemandEvent,
    EngineKind,
    ForecastPolicy,
    ModelId,
    NodeId,
    TelemetryPolicy,
    Tenant,
    World,
)
from placement.plan import Reason, ReasonCode
from placement.planning.demand import ModelDemand
from placement.planning.draft import Elastic, Facts, Going, Room
from placement.planning.explained import PLANS, fixed_ids
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.recorded import VERSION, RecordError, bare, read, recorded, written
from placement.planning.resident import Residency, Resident
from placement.snapshot import Rung
from tests.builders import catalog, model
from tests.planning.clusters import clusters
from tests.prewarm.worlds import fleet, stands

N0 = "snapshot.nodes[0]"

Edit = Callable[[dict[str, Any]], None]


def full() -> Facts:
    """Every field says something."""
    here, gone = model("here"), model("gone")
    whole = catalog(here)
    why = Reason(code=ReasonCode.RESIDENCY, numbers={"value": 0.1})
    resident = Resident(model_id=ModelId("here"), node_id=NodeId("n0"), gpu_ids=(1,), why=why)
    need = ((b"\x00\xff",), (b"\x0f\xff", b"\x00\x01"))
    return Facts(
        snapshot=fleet(whole, stands("r1", "here"), stands("r2", "here", Rung.PARKED, gpus=(1,))),
        catalog=whole,
        models={"here": here, "gone": gone},
        demand={"here": ModelDemand(model_id=ModelId("here"), held=3, rate_per_s=1 / 3)},
        in_flight={"r1": 2},
        blocked_until_us={("here", "n0"): 5, ("gone", "n0"): 6},
        cleared_for={"r1": "gone"},
        rooms={"gone": Room(node_id="n0", gpu_ids=(0,), until_us=7)},
        excess_since_us={"here": 8},
        outlook=Outlook(
            made_us=9,
            horizons_us=(10, 20),
            paths=16,
            models={"here": ModelOutlook(model_id=ModelId("here"), need=need)},
            gpus=((1, 2), (3, 4)),
        ),
        residency=Residency(made_us=9, residents=(resident,), value=0.3, bound=0.4),
        elastic=Elastic(lead_us=11, nodes_min=1, coming={"n1": 12}, since_us={"n0": 1}),
        going=Going(too_many_since_us=13, node_id="n0", since_us=14),
        now_us=15,
    )


def through(facts: Facts) -> Facts:
    return read(written(recorded(facts, source="a test", policy="reactive"))).facts()


def test_every_field_comes_back_as_it_was() -> None:
    """A field that is added to the facts is to be added to the record as well."""
    facts = full()
    empty = Facts(
        snapshot=facts.snapshot, catalog=facts.catalog, models={}, demand={}, in_flight={}
    )
    always = {"snapshot", "catalog"}
    unsaid = [f.name for f in fields(Facts) if getattr(facts, f.name) == getattr(empty, f.name)]
    assert set(unsaid) == always, "the test's facts are to say something in every field"
    assert through(facts) == facts


@pytest.mark.parametrize("world", World)
@pytest.mark.parametrize("policy", PLANS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_same_plan_follows_byte_for_byte(
    data: st.DataObject, policy: str, world: World
) -> None:
    facts = data.draw(clusters(world, forecast=policy != "reactive"))
    plans = [PLANS[policy](f, fixed_ids(f.snapshot)).plan for f in (facts, through(facts))]
    assert msgspec.json.encode(plans[0]) == msgspec.json.encode(plans[1])


def test_nothing_secret_and_nothing_that_no_decision_reads_is_written() -> None:
    told = model(
        "m",
        engine=EngineKind.VLLM,
        source="s3://secret-bucket/m",
        adapters=(Adapter(id="secret-adapter", source="secret-source"),),
        engine_args=("--api-key", "secret-key"),
        endpoints=("http://user:secret@host",),
        upstream_model="secret-name",
        api_key_env="SECRET_VARIABLE",
    )
    whole = catalog(
        told,
        tenants=(Tenant(id="secret-tenant", key_sha256=("secret-digest",)),),
        telemetry=TelemetryPolicy(otlp_url="http://secret@traces"),
        forecast=ForecastPolicy(events=(DemandEvent(name="secret launch", start_us=0, end_us=1),)),
        vllm_python="/home/secret/python",
    )
    facts = replace(full(), catalog=whole, models={"m": told, "left": told})
    data = written(recorded(facts, source="a test", policy="reactive"))
    assert b"secret" not in data.lower()
    assert read(data).facts().catalog == bare(whole)


# --- files that are none


def edited(edit: Edit) -> bytes:
    document = json.loads(written(recorded(full(), source="a test", policy="reactive")))
    edit(document)
    return json.dumps(document).encode()


def problem(data: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.remedy, "what to do about it is said"
    return caught.value


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"models:\n- id: m\n", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[1, 2]", "Expected `object`"),
        (b'{"model": "m"}', "is not there"),
        (b'{"format": "other", "version": 1}', "is 'other'"),
        (b'{"format": 3}', "Expected `str`"),
    ],
)
def test_a_foreign_file_is_told_from_a_record(data: bytes, what: str) -> None:
    assert what in problem(data).what


def test_half_a_file_says_where_it_ends() -> None:
    data = written(recorded(full(), source="a test", policy="reactive"))
    for length in (1, 100, len(data) // 2, len(data) - 1):
        assert problem(data[:length]).what == f"ends in the middle, after {length} bytes"


@pytest.mark.parametrize(
    ("version", "remedy"), [(VERSION + 1, "upgrade"), (VERSION - 1, "Record it anew")]
)
def test_another_version_says_what_to_do(version: int, remedy: str) -> None:
    found = problem(edited(lambda d: d.update(version=version, new_field=1)))
    assert found.field == "version"
    assert str(version) in found.what
    assert remedy in found.remedy


def _node(d: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = d["snapshot"]["nodes"][0]
    return found


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda d: d.update(now_us="soon"), "now_us"),
        (lambda d: d.update(more=1), ""),
        (lambda d: d.pop("snapshot"), ""),
        (lambda d: _node(d)["gpus"][1].update(hbm_bytes=None), f"{N0}.gpus[1].hbm_bytes"),
        (lambda d: _node(d)["replicas"][0].update(rung=9), "snapshot.nodes[0].replicas[0].rung"),
        (lambda d: d["elastic"].pop("lead_us"), "elastic"),
        (
            lambda d: d["outlook"]["models"]["here"].update(need=[["?"]]),
            "outlook.models[...].need[0][0]",
        ),
        (lambda d: _node(d)["gpus"].pop(), "snapshot.nodes[0].gpus"),
        (lambda d: _node(d)["replicas"][1].update(gpu_ids=[7]), f"{N0}.replicas[1].gpu_ids"),
        (lambda d: _node(d)["replicas"][1].update(node_id="n9"), f"{N0}.replicas[1].node_id"),
        (lambda d: _node(d)["replicas"][1].update(replica_id="r1"), f"{N0}.replicas[1].replica_id"),
        (lambda d: d["snapshot"]["nodes"].append(_node(d)), "snapshot.nodes[1].node_id"),
    ],
)  # fmt: skip
def test_what_was_edited_is_told_with_its_field(edit: Edit, field: str) -> None:
    assert problem(edited(edit)).field == field
