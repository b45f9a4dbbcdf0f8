"""What a doctor makes of a catalog, of servers that others run, of engines, of a gateway."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.doctor.finding import Finding, Setup, Status
from gateway.doctor.judge_catalog import (
    EndpointSeen,
    GatewaySeen,
    WeightsSeen,
    judge_catalog,
    judge_endpoint,
    judge_gateway,
    judge_gpus,
    judge_llamacpp,
    judge_secrets,
    judge_vllm,
)
from loadtests.checks import judge_traces
from placement.catalog import Catalog, EngineKind, Tenant
from placement.catalog_problems import Problem
from tests.builders import catalog, model, node

THEIRS = model(
    "theirs", engine=EngineKind.EXTERNAL, endpoints=("http://127.0.0.1:9",), api_key_env="THEIR_KEY"
)
texts = st.text(max_size=20)


def setup(declared: Catalog | None = None, **changes: Any) -> Setup:
    plain = Setup(
        catalog_path=Path("catalog.yaml"),
        catalog=declared,
        problems=(),
        host="127.0.0.1",
        port=8000,
        admin_port=8001,
        state_dir=Path("/state"),
        traces=None,
        secret_of=lambda _: "",
    )
    return plain._replace(**changes)


def only(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    return finding


def test_every_problem_of_a_catalog_is_told_with_its_own_remedy() -> None:
    bad = [
        Problem(file="c.yaml", line=i, field=f"models[{i}]", what="wrong", remedy=f"mend {i}")
        for i in (3, 7)
    ]
    found = list(judge_catalog(setup(problems=bad)))
    assert [f.found for f in found] == ["c.yaml:3: models[3]: wrong", "c.yaml:7: models[7]: wrong"]
    assert [f.mend for f in found] == ["mend 3", "mend 7"]
    assert {f.status for f in found} == {Status.FAIL}


def test_an_address_for_everybody_wants_tenants() -> None:
    open_ = catalog(model("m"))
    closed = msgspec.structs.replace(open_, tenants=(Tenant(id="t", key_sha256=("0" * 64,)),))
    checks = [f.check for f in judge_catalog(setup(open_, host="0.0.0.0"))]
    assert checks == ["catalog", "host"]
    assert only(judge_catalog(setup(closed, host="0.0.0.0"))).status is Status.OK
    assert only(judge_catalog(setup(open_))).status is Status.OK


def test_a_key_is_missing_unfit_or_set_and_never_shown() -> None:
    declared = catalog(THEIRS)
    missing = only(judge_secrets(declared, lambda _: ""))
    assert (missing.status, "theirs" in missing.found) == ("fail", True)
    assert "export THEIR_KEY" in missing.mend
    unfit = only(judge_secrets(declared, lambda _: "sk-secret\n"))
    assert unfit.status is Status.FAIL
    well = only(judge_secrets(declared, lambda _: "sk-secret"))
    assert well.status is Status.OK
    assert "sk-secret" not in f"{unfit}{well}"
    assert not list(judge_secrets(catalog(model("m")), lambda _: ""))


@given(
    st.builds(
        EndpointSeen,
        st.just("http://127.0.0.1:9"),
        st.integers(100, 599),
        st.none() | st.lists(st.sampled_from(["theirs", "other"])).map(tuple),
        texts,
    )
)
def test_a_server_of_others_never_fails_us_and_is_always_named(seen: EndpointSeen) -> None:
    finding = judge_endpoint(THEIRS, seen)
    assert finding.status is not Status.FAIL
    assert "theirs" in finding.found
    assert seen.url in finding.found
    well = not seen.error and seen.status < 500 and seen.status not in (401, 403)
    assert (finding.status is Status.OK) == (
        well and (seen.listed is None or "theirs" in seen.listed)
    )


def test_a_server_that_lists_other_models_is_told_which() -> None:
    spec = msgspec.structs.replace(THEIRS, upstream_model="their-name")
    seen = EndpointSeen("http://127.0.0.1:9", 200, ("a", "b"))
    finding = judge_endpoint(spec, seen)
    assert "no model their-name, but: a, b" in finding.found
    assert "upstream_model" in finding.mend
    assert judge_endpoint(spec, seen._replace(listed=("their-name",))).status is Status.OK
    asked_without_key = judge_endpoint(spec, seen._replace(status=401, listed=None))
    assert "THEIR_KEY" in asked_without_key.mend


def test_each_model_of_llamacpp_has_its_file_or_hears_why_not() -> None:
    here = model("here", engine=EngineKind.LLAMACPP, source="a.gguf")
    gone = model("gone", engine=EngineKind.LLAMACPP, source="b.gguf")
    weights = {
        "a.gguf": WeightsSeen("a.gguf", "/a.gguf", 98_000_000),
        "b.gguf": WeightsSeen("b.gguf", error="there is no such GGUF file"),
    }
    found = list(judge_llamacpp(catalog(here, gone, model("other")), weights, error=""))
    assert [(f.status, f.found.split(":")[0]) for f in found] == [("ok", "here"), ("fail", "gone")]
    broken = only(judge_llamacpp(catalog(here), {}, error="Illegal instruction"))
    assert (broken.status, "Illegal instruction" in broken.found) == ("fail", True)


@pytest.mark.parametrize(
    ("found", "trouble", "status"),
    [
        ("vLLM 0.32.0 of /v/bin/python", "", "ok"),
        ("vLLM 0.99.0 of /v/bin/python", "newer than what was tried", "warn"),
        ("", "no vLLM: `make setup-vllm` builds .venv-vllm", "fail"),
    ],
)
def test_vllm_is_found_and_what_is_amiss_is_told(found: str, trouble: str, status: str) -> None:
    finding = only(judge_vllm(found, trouble))
    assert (finding.status, finding.mend) == (status, trouble)


@pytest.mark.parametrize(("seen", "status"), [(8, "ok"), (2, "ok"), (1, "fail"), (0, "fail")])
def test_vllm_wants_the_gpus_that_the_catalog_names(seen: int, status: str) -> None:
    declared = catalog(model("v", engine=EngineKind.VLLM), nodes=(node("n0", gpus=2),))
    assert judge_gpus(seen, declared).status == status


def test_a_gateway_is_compared_with_the_file_and_its_nodes_are_counted() -> None:
    declared = msgspec.structs.replace(catalog(model("m")), version="new")
    status = {
        "stopping": False,
        "catalog_version": "new",
        "nodes": [{"node": "n0", "alive": True}, {"node": "n1", "alive": True}],
    }
    seen = GatewaySeen("http://127.0.0.1:8000", 7, status)

    def judged(seen: GatewaySeen | None, busy: str = "") -> dict[str, Status]:
        return {f.check: f.status for f in judge_gateway(seen, busy, setup(declared))}

    assert judged(seen) == {"gateway": Status.OK, "nodes": Status.OK}
    old = seen._replace(status={**status, "catalog_version": "old"})
    assert judged(old) == {"gateway": Status.WARN, "nodes": Status.OK}
    dead = [{"node": "n0", "alive": True}, {"node": "n1", "alive": False}]
    assert judged(seen._replace(status={**status, "nodes": dead}))["nodes"] is Status.FAIL
    assert judged(seen._replace(error="hangs")) == {"gateway": Status.FAIL}
    assert judged(None) == {"gateway": Status.OK}
    assert judged(None, "waiting for the agents of n0") == {"gateway": Status.WARN}


def test_no_traces_are_no_trouble_unless_somebody_named_a_folder() -> None:
    folder = Path("/traces")
    assert "generator" in judge_traces(folder, 0, demo=False, named=False).found
    assert judge_traces(folder, 0, demo=False, named=False).status is Status.OK
    assert judge_traces(folder, 0, demo=False, named=True).status is Status.WARN
    assert judge_traces(folder, 3, demo=True, named=True).found.startswith(
        "3 files in /traces, with"
    )
