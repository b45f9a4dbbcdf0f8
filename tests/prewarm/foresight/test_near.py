"""The last seconds of a model: rates, clumps, lengths."""

import numpy as np
import pytest

from prewarm.calendars import US
from prewarm.foresight.learnt import Usual
from prewarm.foresight.near import Near, Totals, since

USUAL = Usual(prompt_tokens=100.0, output_tokens=10.0, dispersion=3.0)


def totals(offered: int, answered: int = 0, prompt: int = 0, output: int = 0) -> Totals:
    return Totals(*(np.array([value]) for value in (offered, answered, prompt, output)))


def near(offered: int = 0, half_life_us: int = 20 * US) -> Near:
    found = Near([USUAL], half_life_us)
    found.begin(totals(offered), 0)
    return found


def test_a_steady_rate_is_found_and_what_came_before_does_not_count() -> None:
    seen = near(offered=1_000_000)
    for second in range(1, 121):
        seen.add(totals(1_000_000 + 3 * second), second * US)
    assert seen.rate_per_s[0] == pytest.approx(3.0, rel=0.05)


def test_a_first_request_is_not_taken_for_a_rate_of_its_own() -> None:
    seen = near()
    seen.add(totals(1), US // 2)
    assert seen.rate_per_s[0] <= 0.1  # one in ten seconds, not two a second


def test_after_one_half_life_without_requests_half_of_the_rate_is_left() -> None:
    seen = near()
    for second in range(1, 201):
        seen.add(totals(5 * second), second * US)
    before = seen.rate_per_s[0]
    seen.add(totals(1000), 220 * US)
    assert seen.rate_per_s[0] == pytest.approx(before / 2, rel=0.01)


def test_a_gateway_that_began_anew_has_offered_what_it_says() -> None:
    assert since(np.array([7, 12]), np.array([100, 10])).tolist() == [7, 2]


def test_clumps_are_told_from_an_even_stream() -> None:
    even, clumped = near(), near()
    for at in range(1, 401):
        even.add(totals(10 * at), at * 5 * US)
        clumped.add(totals(20 * ((at + 1) // 2)), at * 5 * US)  # twenty in every other window
    # Differences of 20, means of 10: 20^2 / 2 / 10 = 20, of which 16 at most are believed.
    assert even.dispersion[0] == 1.0
    assert clumped.dispersion[0] == pytest.approx(16.0, rel=0.15)


def test_another_rate_counts_once_and_is_no_clumping() -> None:
    seen = near()
    for at in range(1, 101):
        seen.add(totals(10 * at if at <= 50 else 500 + 100 * (at - 50)), at * 5 * US)
    # One difference of 90 at a mean of 55 counts 16 x 55 = 880, over 5,500 requests.
    assert seen.dispersion[0] < 1.5


def test_lengths_begin_as_usual_and_become_what_is_seen() -> None:
    seen = near()
    assert (seen.prompt_tokens[0], seen.output_tokens[0]) == (100.0, 10.0)
    seen.add(totals(50, answered=50, prompt=50 * 300, output=50 * 30), US)
    # Fifty as usual and fifty seen.
    assert seen.prompt_tokens[0] == pytest.approx(200, rel=0.01)
    assert seen.output_tokens[0] == pytest.approx(20, rel=0.01)
