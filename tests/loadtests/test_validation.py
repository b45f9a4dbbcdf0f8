"""Published results beside ours: the arithmetic by hand, and honest book-keeping of what counts."""

import pytest

from loadtests.validation import engines as e
from loadtests.validation import llmux
from loadtests.validation.figures import (
    T6,
    Claim,
    Figure,
    Ordering,
    Verdict,
    figure_rows,
    ordering_rows,
)
from loadtests.validation.service import saturated, sharegpt
from loadtests.validation.study import figures, reproduced
from placement import constants as c

FIGURES = figures()


def figure(**changes: object) -> Figure:
    told: dict[str, object] = {
        "name": "a wake",
        "unit": "s",
        "published": 10.0,
        "ours": 11.9,
        "source": "a blog",
        "grade": "B",
    }
    return Figure(**{**told, **changes})  # type: ignore[arg-type]


def test_a_figure_counts_within_a_fifth_unless_something_was_fitted_on_it() -> None:
    assert figure().verdict is Verdict.REPRODUCED
    assert figure(ours=7.9).verdict is Verdict.MISSED
    assert figure(ours=12.1).verdict is Verdict.MISSED
    assert figure(fitted="H2D_STREAM").verdict is Verdict.FITTED


def test_five_results_or_more_of_three_sources_or_more_are_reproduced() -> None:
    found = reproduced(FIGURES)
    assert len(found) >= 5
    assert len({f.source for f in found}) >= 3


@pytest.mark.parametrize("found", FIGURES, ids=lambda f: f"{f.name} [{f.unit}]")
def test_a_miss_is_explained_and_a_fitted_constant_exists(found: Figure) -> None:
    if found.verdict is Verdict.MISSED:
        assert found.miss, f"{found.name} is off by {found.ratio:.2f} and nobody says why"
    if found.fitted:
        assert hasattr(c, found.fitted)


def test_names_tell_the_results_apart() -> None:
    assert len({(f.name, f.unit) for f in FIGURES}) == len(FIGURES)


def test_a_sleep_and_a_wake_worked_out_by_hand() -> None:
    # 80 GB x 0.9 - 61 GB of weights - 1.5 GB of activations leave 9.5 GB of KV cache:
    # 0.1 s + 9.5 x 0.0122 s of unmapping + 61 GB at 24 GB/s.
    assert e.sleep_s(e.QWEN3_30B) == pytest.approx(0.1 + 0.1159 + 2.5417, abs=1e-3)
    # 72 - 68.7 - 1.5 leave 1.8 GB: 0.3 s + 68.7 GB at 22 GB/s + 1.8 x 0.0178 s of mapping.
    assert e.wake_s(e.FMA_64_GIB) == pytest.approx(0.3 + 3.1227 + 0.0320, abs=1e-3)


A, B = llmux.Tenant(1, 1, 2), llmux.Tenant(1, 1, 3)
"""Answer, sleep, wake in seconds."""


def test_fifo_switches_for_every_request_and_waits_out_the_least_time_awake() -> None:
    gpu = llmux.Gpu((A, B), llmux.fifo, [0, 0])
    gpu.round()
    # A is awake and answers until 1.0. B asked at 0.1; A sleeps until 2, B wakes until 5, answers.
    assert gpu.switching_s == pytest.approx([4.9])
    assert (gpu.now_s, gpu.awake) == (6, 1)
    gpu.round()
    # A asks at 6: B must be awake until 10, sleeps until 11, A wakes until 13 and answers until 14.
    # B asks meanwhile: A must be awake until 18, sleeps until 19, B wakes until 22.
    assert gpu.switching_s[1:] == [7, 9]
    assert gpu.now_s == 23
    assert gpu.useful == pytest.approx(1 - 20.9 / 23)


def test_minimum_tenure_serves_as_long_as_a_switch_is_believed_to_take() -> None:
    gpu = llmux.Gpu((A, B), llmux.cost_aware, [4, 5])
    gpu.round()
    # A has served long enough and the queue is short: two seconds to coalesce, then 1 + 3.
    assert gpu.switching_s == pytest.approx([4])
    assert gpu.believed_s[1] == pytest.approx(5 + 0.3 * (4 - 5))
    awake_since_s, asked_s = 6.1, 7.1
    assert [gpu.awake_since_s, gpu.now_s] == pytest.approx([awake_since_s, asked_s])
    gpu.round()
    # B's own request is answered at once. A's waits until B has served its 4 s, and for B's least
    # time awake (5 s), of which 1 s counts as switching; then 1 + 2.
    assert gpu.switching_s[1] == pytest.approx(1 + 1 + 2)
    assert gpu.now_s == pytest.approx(awake_since_s + 5 + 3 + 1)


def test_one_at_a_time_a_replica_yields_what_its_answers_take() -> None:
    per_s, gap_ms = saturated(e.LLAMA_8B, "A100-80GB", [(1024, 128)] * 5, at_once=1)
    answer_s = e.answer_s(e.LLAMA_8B, "A100-80GB", 1024, 128)
    assert per_s == pytest.approx(128 / answer_s, rel=1e-4)
    assert 0 < 127 * gap_ms / 1000 < answer_s


def test_lengths_are_cut_and_have_about_the_means_of_the_run_they_stand_for() -> None:
    prompts, outputs = zip(*sharegpt(4000), strict=True)
    assert max(prompts) <= 1024
    assert min(outputs) >= 1
    assert sum(prompts) / 4000 == pytest.approx(230, rel=0.1)
    assert sum(outputs) / 4000 == pytest.approx(225, rel=0.1)


def test_an_ordering_holds_only_if_each_variant_beats_the_next() -> None:
    claim = Claim(name="c", best_first=("x", "y", "z"), source="s", grade="C")
    assert Ordering(claim=claim, ours={"z": 1.0, "y": 2.0, "x": 3.0}).holds
    assert not Ordering(claim=claim, ours={"z": 2.0, "y": 2.0, "x": 3.0}).holds
    with pytest.raises(KeyError):
        _ = Ordering(claim=claim, ours={"x": 3.0}).holds


def test_the_report_names_each_result_once_and_explains_the_misses() -> None:
    rows = figure_rows([figure(assumed="TP1"), figure(name="b", ours=1.0, miss="too slow a link")])
    assert rows[2].startswith("| 1. a wake | 10 s | 11.9 s | 1.19 | reproduced |")
    assert "| missed |" in rows[3]
    assert rows[-2:] == ["- 1: TP1", "- 2: too slow a link"]
    shares = dict(zip(T6.best_first, (80.0, 70.0, 20.0, 12.0), strict=True))
    assert "| yes | C," in ordering_rows([Ordering(claim=T6, ours=shares)])[2]
