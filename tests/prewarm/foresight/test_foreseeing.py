"""What is expected of models, told as stories and as laws."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.planning.outlook import Outlook
from prewarm.calendars import US
from prewarm.foresight.options import Options, Together
from tests.prewarm.foresight.pasts import (
    DAY_BINS,
    WIDTH_US,
    foreseen,
    looked_at,
    poisson,
    steady,
    together,
    watch,
)

FAR_US = 1800 * US
WITHIN_US = Options().within_us


def share(outlook: Outlook, model: str, count: int, within_us: int) -> float:
    return outlook.share(outlook.mask(model, count, within_us))


def both(outlook: Outlook, one: str, other: str, count: int, within_us: int) -> float:
    masks = (outlook.mask(m, count, within_us) for m in (one, other))
    return outlook.share(next(masks) & next(masks))


# --- stories


def test_from_the_first_moment_on_what_is_usual_is_expected() -> None:
    """600 requests in five minutes, 2.6 s each: 5.2 at once in the mean, on replicas of ten."""
    expected = foreseen(steady(600.0, 0.0)).outlook(0)
    busy, idle = expected.models["a"], expected.models["b"]
    assert busy.rate_per_s == pytest.approx(2, rel=0.1)
    assert busy.service_s == pytest.approx(2.6)
    assert busy.slots == 10
    assert share(expected, "a", 1, 10 * US) > 0.95
    assert share(expected, "a", 1, FAR_US) == 1
    assert share(expected, "a", 2, FAR_US) > share(expected, "a", 2, 10 * US)
    assert share(expected, "b", 1, FAR_US) == 0
    assert idle.rate_per_s < 0.01


def test_a_model_that_runs_is_needed_now_whatever_is_forecast() -> None:
    foresight = foreseen(steady(0.0))
    watch(foresight, 0, 2 * US, lambda _, s: 25 * (s > 0), running=25)
    expected = foresight.outlook(2 * US)
    assert share(expected, "a", 3, 10 * US) == 1


def test_a_flash_crowd_is_seen_within_seconds() -> None:
    foresight = foreseen(steady(30.0))
    watch(foresight, 0, 60 * US, lambda _, s: int(s * 0.1))
    before = foresight.outlook(60 * US)
    watch(foresight, 61 * US, 75 * US, lambda _, s: int(6 + 20 * (s - 60)), running=40)
    after = foresight.outlook(75 * US)
    assert before.models["a"].rate_per_s < 0.3
    assert after.models["a"].rate_per_s > 5
    assert share(before, "a", 2, 60 * US) < 0.1
    assert share(after, "a", 4, 60 * US) > 0.9


def test_a_morning_is_expected_before_it_comes() -> None:
    """Nothing at night, and every day from six on 3,000 in each five minutes."""
    day = np.where(np.arange(DAY_BINS) >= 72, 3000.0, 0.0)
    values = np.concatenate([np.tile(day, 6), day[:70]])[:, None]
    expected = foreseen(poisson(values)).outlook(0)
    assert share(expected, "a", 2, 60 * US) < 0.05
    assert share(expected, "a", 2, FAR_US) > 0.8  # ten minutes ahead


def test_a_model_without_a_past_lives_by_its_last_seconds() -> None:
    foresight = foreseen(np.full((0, 1), np.nan))
    assert not foresight.outlook(0).models["a"].acts
    assert share(foresight.outlook(0), "a", 1, FAR_US) == 0
    watch(foresight, 0, 60 * US, lambda _, s: int(2 * s))
    expected = foresight.outlook(60 * US)
    assert expected.models["a"].rate_per_s == pytest.approx(2, rel=0.1)
    assert share(expected, "a", 1, 60 * US) == 1


def test_bins_that_end_are_learnt_and_holes_are_not_taken_for_silence() -> None:
    watched, away = foreseen(steady(600.0)), foreseen(steady(600.0))
    watch(watched, 0, 3 * WIDTH_US, lambda _, s: int(2 * s))
    watch(away, 0, 20 * US, lambda _, s: int(2 * s))
    watch(away, 3 * WIDTH_US - 20 * US, 3 * WIDTH_US, lambda _, s: int(2 * s))
    assert watched.far.seen()[-3:, 0] == pytest.approx([600, 600, 600], abs=2)
    assert np.isnan(away.far.seen()[-3:, 0]).all()
    assert share(away.outlook(3 * WIDTH_US), "a", 1, FAR_US) == 1


def test_who_left_the_catalog_is_asked_nothing_and_who_is_new_has_no_outlook() -> None:
    foresight = foreseen(steady(0.0, 0.0))
    foresight.see(looked_at(0, {"a": 50, "b": 50}, running=5))
    foresight.see(looked_at(US, {"b": 50, "new": 9}, running=5))
    expected = foresight.outlook(US)
    assert share(expected, "a", 1, 10 * US) == 0
    assert share(expected, "b", 1, 10 * US) == 1
    assert expected.of("new") is None


def test_a_gateway_that_began_anew_is_no_flash_crowd() -> None:
    foresight = foreseen(steady(30.0))
    foresight.see(looked_at(0, {"a": 1_000_000}))
    foresight.see(looked_at(US, {"a": 0}))
    assert foresight.outlook(US).models["a"].rate_per_s < 0.2


def test_before_the_beginning_nothing_is_learnt_of_silence() -> None:
    """A warm-up of a minute in which nobody can ask."""
    foresight = foreseen(steady(600.0), begins_us=60 * US)
    watch(foresight, 0, 60 * US, lambda _, __: 0)
    assert foresight.outlook(60 * US).models["a"].rate_per_s > 1.8


# --- together


def test_models_that_burst_together_are_needed_together() -> None:
    """A burst is one bin in ten: a and b in the same ones, c in others. 3,000 requests in five
    minutes are 26 at once, three replicas; else one suffices."""
    values = together()
    joint = foreseen(values).outlook(0)
    shuffled = foreseen(values, options=Options(together=Together.INDEPENDENT)).outlook(0)
    alone = [share(joint, m, 3, 60 * US) for m in "abc"]
    assert all(0.03 < p < 0.2 for p in alone)
    assert both(joint, "a", "b", 3, 60 * US) > 0.5 * min(alone[:2])
    assert both(joint, "a", "c", 3, 60 * US) < 0.4 * min(alone)
    assert both(shuffled, "a", "b", 3, 60 * US) < 0.4 * min(alone)


def test_independence_changes_no_models_own_chances() -> None:
    values = together()
    joint, shuffled = (
        foreseen(values, options=Options(together=how)).outlook(0)
        for how in (Together.JOINT, Together.INDEPENDENT)
    )
    for model in "abc":
        for within_us in WITHIN_US:
            one, other = (share(o, model, 3, within_us) for o in (joint, shuffled))
            assert one == pytest.approx(other, abs=0.08)


def test_a_point_forecast_knows_no_bursts() -> None:
    said = foreseen(together(), options=Options(together=Together.POINT)).outlook(0)
    assert share(said, "a", 3, 60 * US) == 0


def test_an_inverted_forecast_expects_the_idle_and_not_the_busy() -> None:
    """Both went up and down for a day and a half; at last a is at its top and b at its bottom."""
    wave = np.where(np.arange(432) // 36 % 2 == 1, 3000.0, 3.0)
    values = poisson(np.stack((wave, 3003 - wave), axis=1))
    right = foreseen(values).outlook(0)
    wrong = foreseen(values, options=Options(inverted=True)).outlook(0)
    for said, busy, idle in ((right, "a", "b"), (wrong, "b", "a")):
        assert share(said, busy, 2, 60 * US) > 0.9
        assert share(said, idle, 2, 60 * US) < 0.1


# --- paths for a residency plan


def test_paths_are_drawn_when_due_and_bursts_in_them_are_joint() -> None:
    foresight = foreseen(together())
    paths = foresight.paths(0)
    assert paths is not None
    assert paths.concurrency.shape == (3, 12, 128)
    assert (paths.models, paths.step_us, paths.start_us) == (("a", "b", "c"), WIDTH_US, 0)
    assert foresight.paths(299 * US) is None
    assert foresight.paths(300 * US) is not None
    burst = paths.needed()[:, 0] >= 3
    alone = burst.mean(axis=1)
    assert (burst[0] & burst[1]).mean() > 0.5 * alone[:2].min()
    assert (burst[0] & burst[2]).mean() < 0.4 * alone.min()


def test_after_a_bin_has_ended_paths_begin_with_the_next() -> None:
    foresight = foreseen(steady(600.0))
    watch(foresight, 0, WIDTH_US + US, lambda _, s: int(2 * s))
    paths = foresight.paths(WIDTH_US + US)
    assert paths is not None
    assert paths.start_us == WIDTH_US


# --- laws


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 5000), min_size=1, max_size=3),
    st.integers(0, 60),
    st.floats(0, 40),
    st.integers(0, 60),
    st.integers(0, 3),
)
def test_masks_shrink_with_the_count_and_grow_with_the_horizon(
    per_bin: list[float], seconds: int, rate: float, running: int, seed: int
) -> None:
    foresight = foreseen(steady(*per_bin, days=0.1, seed=seed), seed=seed)
    watch(foresight, 0, seconds * US, lambda _, s: int(rate * s), running=running)
    expected = foresight.outlook(seconds * US)
    for model in foresight.models:
        for count in range(1, 9):
            masks = [expected.mask(model, count, within_us) for within_us in WITHIN_US]
            assert all(near & far == near for near, far in pairwise(masks))
            fewer = [expected.mask(model, count - 1, within_us) for within_us in WITHIN_US]
            assert count == 1 or all(m & f == m for m, f in zip(masks, fewer, strict=True))


def test_the_same_seed_foresees_the_same() -> None:
    def told(seed: int) -> tuple[bytes, bytes]:
        foresight = foreseen(together(), seed=seed)
        watch(foresight, 0, 20 * US, lambda _, s: int(s))
        paths = foresight.paths(20 * US)
        assert paths is not None
        return msgspec.json.encode(foresight.outlook(20 * US)), paths.concurrency.tobytes()

    assert told(4) == told(4)
    assert told(4)[0] != told(5)[0]


def test_between_two_reckonings_needs_are_kept_and_rates_are_not() -> None:
    foresight = foreseen(steady(600.0))
    watch(foresight, 0, US, lambda _, s: int(2 * s))
    first = foresight.outlook(US)
    watch(foresight, 2 * US, 5 * US, lambda _, s: int(2 * s) + 200)
    second = foresight.outlook(5 * US)
    assert second.models["a"].need == first.models["a"].need
    assert second.models["a"].rate_per_s > first.models["a"].rate_per_s
    assert foresight.outlook(5 * US) is second


def test_a_catalog_without_models_expects_nothing() -> None:
    foresight = foreseen(np.empty((0, 0)))
    watch(foresight, 0, WIDTH_US + US, lambda _, __: 0)
    assert foresight.outlook(WIDTH_US + US).models == {}
    paths = foresight.paths(WIDTH_US + US)
    assert paths is not None
    assert paths.concurrency.shape == (0, 12, 128)
