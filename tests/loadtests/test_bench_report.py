"""What a benchmark's rounds come to: ratios within rounds, targets, and who has no row."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.bench_report import (
    KINDS,
    OURS,
    TARGETS,
    Facts,
    Measured,
    Report,
    Round,
    markdown,
    report_of,
)

PEERS = ("vllm-router", "smg", "litellm")


def facts(*names: str) -> Facts:
    return Facts(
        cores=2,
        cpu="a processor",
        python="3.11.7",
        load_average=0.1,
        rounds=3,
        connections=64,
        requests={
            name: {"chat": 400, "stream": 100} if name == "litellm" else {"chat": 9, "stream": 5}
            for name in names
        },
        versions=dict.fromkeys(names, "1.2.3"),
        rss_mb=dict.fromkeys(names, 50),
        quick=False,
    )


def rounds(*cpu_us: float | None) -> dict[int, Round]:
    """A round each, none where a subject sat out."""
    return {
        number: Round(cpu_us=cpu, per_s=1e6 / cpu, p99_ms=cpu / 10)
        for number, cpu in enumerate(cpu_us)
        if cpu is not None
    }


def reported(
    by_name: Mapping[str, dict[int, Round]], fell_out: Mapping[str, str] | None = None
) -> Report:
    measured = Measured(rounds=dict.fromkeys(KINDS, by_name), fell_out=fell_out or {})
    return report_of(measured, facts(*by_name))


def test_ratios_are_taken_within_a_round_and_only_where_both_ran() -> None:
    """The machine slows in the second round, for both alike: the ratio does not move."""
    report = reported({OURS: rounds(40, 80, 40), "smg": rounds(100, 200, None)})
    ours, smg = report.rows["chat"]
    assert (smg.ratio, smg.ratio_min, smg.ratio_max) == (0.4, 0.4, 0.4)
    assert (smg.cpu_us, smg.cpu_us_min, smg.cpu_us_max, smg.rounds) == (150, 100, 200, 2)
    assert (ours.cpu_us, ours.ratio, ours.rounds) == (40, None, 3)


@given(cpu=st.lists(st.floats(1, 1e5), min_size=1, max_size=9), factor=st.floats(1.01, 1000))
def test_a_peer_that_always_costs_so_much_more_is_found_so(cpu: list[float], factor: float) -> None:
    report = reported({OURS: rounds(*cpu), "smg": rounds(*(each * factor for each in cpu))})
    (_, smg) = report.rows["stream"]
    assert smg.ratio == pytest.approx(1 / factor)


@pytest.mark.parametrize(("ours", "met"), [(79.0, True), (80.0, True), (81.0, False)])
def test_a_target_is_met_up_to_its_ratio(ours: float, met: bool) -> None:
    report = reported({OURS: rounds(ours), "vllm-router": rounds(100)})
    (chat,) = [v for v in report.verdicts if (v.kind, v.peer) == ("chat", "vllm-router")]
    assert chat.met is met
    assert f"| chat ÷ vllm-router | 0.8 | {ours / 100:.2f} |" in markdown(report)


def test_who_fell_out_has_a_reason_and_no_row_and_its_targets_are_open() -> None:
    by_name = {OURS: rounds(40), "vllm-router": rounds(50), "litellm": rounds(9000)}
    report = reported(by_name, {"litellm": "of 400 chat requests 3 failed", "smg": "not installed"})
    assert [row.subject for row in report.rows["chat"]] == [OURS, "vllm-router"]
    assert {v.peer: v.met for v in report.verdicts} == {"vllm-router": True, "litellm": None}
    page = markdown(report)
    assert "- litellm: of 400 chat requests 3 failed" in page
    assert "- smg: not installed" in page
    assert "| chat ÷ litellm | 0.01 |  | not measured |" in page


def test_the_page_tells_under_what_conditions() -> None:
    page = markdown(reported({name: rounds(40, 50) for name in (OURS, *PEERS)}))
    for words in (
        "2 cores (a processor), Python 3.11.7",
        "64 kept connections",
        "load average 0.1",
    ):
        assert words in page
    assert "litellm is far slower and got 400 and 100 in fewer rounds" in page
    assert all(f"| {name} 1.2.3 | 2 | 45 |" in page for name in (OURS, *PEERS))
    assert "quick run" not in page


def test_the_targets_are_those_that_were_promised() -> None:
    promised = {("chat", "vllm-router"): 0.8, ("stream", "vllm-router"): 1.0}
    promised |= {("chat", "litellm"): 0.01, ("stream", "litellm"): 0.01}
    assert {(t.kind, t.peer): t.ratio for t in TARGETS} == promised
