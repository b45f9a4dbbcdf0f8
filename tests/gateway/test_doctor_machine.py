"""What a doctor makes of a machine: every trouble has a remedy, and nothing else is a trouble."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.doctor.finding import Finding, Status, all_well, document, fail, ok, warn
from gateway.doctor.judge_machine import (
    DISK_FAIL_BYTES,
    DISK_WARN_BYTES,
    OPEN_FILES_MIN,
    FolderSeen,
    Holder,
    Installed,
    PortSeen,
    judge_clock,
    judge_folder,
    judge_leftovers,
    judge_memory,
    judge_open_files,
    judge_packages,
    judge_port,
    judge_python,
    needed_bytes,
)
from placement.catalog import EngineKind
from tests.builders import catalog, model, node

GB = 10**9
texts = st.text(max_size=20)
bytes_ = st.integers(min_value=0, max_value=10**13)
folders = st.builds(
    FolderSeen,
    path=st.just("/state"),
    exists=st.booleans(),
    mode=st.integers(min_value=0, max_value=0o7777),
    error=texts,
    secrets_open=st.lists(st.sampled_from(["admin.token", "agent.token"])).map(tuple),
    free_bytes=bytes_,
    sqlite=st.just("SQLite 3"),
    sqlite_error=texts,
)
holders = st.none() | st.builds(Holder, st.integers(1, 99999), st.just("nginx"), st.booleans())
ports = st.builds(
    PortSeen,
    st.sampled_from(["--port", "--admin-port"]),
    st.just("127.0.0.1"),
    st.integers(0, 65535),
    texts,
    st.booleans(),
    holders,
)


def statuses(findings: list[Finding]) -> dict[str, Status]:
    return {finding.check: finding.status for finding in findings}


# --- findings


def test_trouble_without_a_remedy_and_a_remedy_without_trouble_are_bugs() -> None:
    with pytest.raises(AssertionError):
        fail("disk", "full", "")
    with pytest.raises(AssertionError):
        Finding(check="disk", status=Status.OK, found="free", mend="free some")


@given(st.lists(st.sampled_from(["ok", "warn", "fail"])))
def test_only_a_failure_makes_the_whole_not_well(kinds: list[str]) -> None:
    made = {"ok": ok("a", "x"), "warn": warn("a", "x", "y"), "fail": fail("a", "x", "y")}
    told = document([made[kind] for kind in kinds])
    assert told["ok"] == ("fail" not in kinds) == all_well([made[kind] for kind in kinds])
    assert [row["status"] for row in told["checks"]] == kinds
    assert all(set(row) == {"check", "status", "found", "mend"} for row in told["checks"])


# --- versions


@pytest.mark.parametrize(
    ("version", "status"), [("3.10.9", "fail"), ("3.11.0", "ok"), ("3.14.0rc1", "ok")]
)
def test_an_old_python_is_told_which_one_would_do(version: str, status: str) -> None:
    finding = judge_python(version, ">=3.11")
    assert finding.status == status
    if status == "fail":
        assert "python3.11" in finding.mend


def test_packages_that_lack_or_lag_are_each_named_with_the_version_wanted() -> None:
    found = list(
        judge_packages(
            [
                Installed("httpx>=0.28", "0.28.1"),
                Installed("numpy>=2.3", "1.26.4"),
                Installed("rich>=14", None),
                Installed("xllamacpp>=2026.1; sys_platform == 'linux'", "2026.10"),
            ]
        )
    )
    assert [f.status for f in found] == ["fail", "fail"]
    assert "numpy 1.26.4" in found[0].found
    assert "'numpy>=2.3'" in found[0].mend
    assert "rich is missing" in found[1].found
    (well,) = judge_packages([Installed("httpx>=0.28", "0.28.1")])
    assert well.status is Status.OK


# --- ports


@given(ports)
def test_a_port_is_trouble_exactly_when_a_gateway_could_not_have_it(seen: PortSeen) -> None:
    finding = judge_port(seen)
    ours = seen.in_use and seen.holder is not None and seen.holder.ours
    assert (finding.status is Status.OK) == (seen.port == 0 or not seen.error or ours)
    if finding.status is Status.FAIL:
        assert seen.flag in finding.mend
        if seen.in_use and seen.holder is not None:
            assert str(seen.holder.pid) in finding.found


def test_a_port_of_our_own_gateway_is_no_trouble() -> None:
    taken = PortSeen("--port", "127.0.0.1", 8000, "Address already in use", in_use=True)
    ours = judge_port(taken._replace(holder=Holder(7, "gateway", ours=True)))
    assert (ours.status, "pid 7" in ours.found) == ("ok", True)
    theirs = judge_port(taken._replace(holder=Holder(8, "nginx", ours=False)))
    assert (theirs.status, "nginx (pid 8)" in theirs.found) == ("fail", True)
    assert "ss -ltnp" in judge_port(taken).mend


# --- the state directory


@given(folders)
def test_a_folder_in_any_shape_is_judged_once_per_question(seen: FolderSeen) -> None:
    found = list(judge_folder(seen))
    names = [finding.check for finding in found]
    assert len(names) == len(set(names))
    assert {"state-dir", "disk"} <= set(names)
    assert ("tokens" in names) == bool(seen.secrets_open)
    bad = bool(seen.error) or (seen.exists and bool(seen.mode & 0o022))
    assert (statuses(found)["state-dir"] is Status.FAIL) == bad


@given(bytes_, bytes_)
def test_more_room_on_a_disk_never_makes_it_worse(one: int, other: int) -> None:
    severity = [Status.FAIL, Status.WARN, Status.OK]
    small, large = (
        statuses(list(judge_folder(FolderSeen("/state", exists=True, free_bytes=free))))["disk"]
        for free in sorted((one, other))
    )
    assert severity.index(small) <= severity.index(large)


def test_the_disks_limits_are_where_they_say() -> None:
    def disk(free: int) -> Status:
        return statuses(list(judge_folder(FolderSeen("/s", exists=True, free_bytes=free))))["disk"]

    assert disk(DISK_FAIL_BYTES - 1) is Status.FAIL
    assert disk(DISK_FAIL_BYTES) is Status.WARN
    assert disk(DISK_WARN_BYTES - 1) is Status.WARN
    assert disk(DISK_WARN_BYTES) is Status.OK


def test_a_folder_open_to_others_is_a_warning_and_open_tokens_a_failure() -> None:
    seen = FolderSeen("/s", exists=True, mode=0o755, free_bytes=GB * 9, secrets_open=("a.token",))
    found = {finding.check: finding for finding in judge_folder(seen)}
    assert (found["state-dir"].status, found["state-dir"].mend) == ("warn", "`chmod 700 /s`")
    assert (found["tokens"].status, found["tokens"].mend) == ("fail", "`chmod 600 /s/a.token`")


def test_leftovers_are_trouble_only_when_nobody_owns_them() -> None:
    engine = ["engine-host of n0 (pid 9)"]
    assert judge_leftovers(engine, stale=[], running=True).status is Status.OK
    orphans = judge_leftovers(engine, stale=["gateway.json"], running=False)
    assert (orphans.status, "pid 9" in orphans.found) == ("warn", True)
    assert "warmtide down" in orphans.mend
    assert judge_leftovers([], stale=["gateway.json"], running=False).status is Status.WARN
    assert judge_leftovers([], stale=[], running=False).status is Status.OK


# --- limits, memory, clocks


@given(st.integers(1, 100_000), st.integers(1, 1000), st.integers(0, 30))
def test_open_files_are_judged_by_what_the_engines_can_hold(
    limit: int, slots: int, models: int
) -> None:
    declared = catalog(*(model(f"m{i}", max_num_seqs=slots) for i in range(models)))
    finding = judge_open_files(limit, declared)
    wanted = OPEN_FILES_MIN + 2 * slots * models
    assert (finding.status is Status.OK) == (limit >= wanted)
    assert (finding.status is Status.FAIL) == (limit < OPEN_FILES_MIN)


def test_memory_counts_real_engines_and_not_the_emulated_bytes() -> None:
    emulated = catalog(model("big", weights_bytes=500 * GB), nodes=(node("n0"),))
    assert needed_bytes(emulated) < GB
    real = catalog(model("small", engine=EngineKind.LLAMACPP, weights_bytes=3 * GB))
    assert 3 * GB < needed_bytes(real) < 5 * GB
    vllm = catalog(model("v", engine=EngineKind.VLLM, weights_bytes=16 * GB))
    assert needed_bytes(vllm) > 16 * GB


@given(bytes_, bytes_, bytes_)
def test_memory_that_is_not_there_fails_and_that_others_hold_warns(
    need: int, one: int, other: int
) -> None:
    available, total = sorted((one, other))
    status = judge_memory(need, available, total, running=False).status
    assert (status is Status.FAIL) == (need > total)
    assert (status is Status.OK) == (need <= available)
    assert judge_memory(need, available, total, running=True).status is Status.OK


@given(st.integers(0, 10**10), st.lists(st.integers(0, 10**10)))
def test_a_clock_is_wrong_only_when_files_come_from_its_future(
    now_s: int, written_s: list[int]
) -> None:
    status = judge_clock(now_s, written_s).status
    assert (status is Status.WARN) == any(written > now_s + 120 for written in written_s)
