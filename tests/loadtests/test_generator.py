"""Generated demand: the same everywhere, shaped by day and week, bursty, and at one with itself."""

import os
import subprocess
import sys

import numpy as np

from loadtests.generator import BIN_US, World, generate_counts, generate_requests, rate_per_bin

SMALL = World(clients=6, days=14, busiest_per_bin=60.0)
DIGEST = """
import hashlib
from loadtests.generator import World, generate_counts, generate_requests
world = World(clients=4, days=2, busiest_per_bin=40.0)
counts, requests = generate_counts(7, world), generate_requests(7, world)
whole = (counts.counts, requests.at_us, requests.stream, requests.prompt_tokens)
print(hashlib.sha256(b"".join(part.tobytes() for part in whole)).hexdigest())
"""


def test_same_seed_same_digest_under_every_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def test_another_seed_is_another_demand() -> None:
    first, other = generate_counts(0, SMALL), generate_counts(1, SMALL)
    assert (first.counts != other.counts).any()


def test_a_client_more_does_not_change_the_others() -> None:
    few, more = generate_counts(0, SMALL), generate_counts(0, SMALL._replace(clients=7))
    assert (few.counts == more.counts[:, :6]).all()


def test_counts_and_requests_tell_the_same_story() -> None:
    counts, requests = generate_counts(0, SMALL), generate_requests(0, SMALL)
    again = np.zeros_like(counts.counts)
    np.add.at(again, ((requests.at_us - requests.start_us) // BIN_US, requests.stream), 1)
    assert (again == counts.counts).all()
    assert (np.diff(requests.at_us) >= 0).all()


def test_fourteen_days_of_ten_minutes_without_holes() -> None:
    counts = generate_counts(0, SMALL)
    assert counts.counts.shape == (14 * 144, 6)
    assert not counts.holes.any()


def test_the_day_shows_afternoons_are_busier_than_nights() -> None:
    counts = generate_counts(0, SMALL).counts.sum(axis=1).reshape(14, 24, 6).sum(axis=(0, 2))
    assert counts[13:18].mean() > 1.5 * counts[1:5].mean()


def test_the_week_shows_weekends_differ() -> None:
    world = SMALL._replace(days=28, clients=40)
    daily = generate_counts(0, world).counts.reshape(4, 7, 144, 40).sum(axis=(0, 2))
    weekend_to_weekday = daily[5:].mean(axis=0) / daily[:5].mean(axis=0)
    assert np.median(weekend_to_weekday) < 0.9


def test_counts_vary_more_than_poisson_around_their_own_rate() -> None:
    counts = generate_counts(0, SMALL).counts[:, 0]
    rate = rate_per_bin(0, SMALL, 0)
    assert np.mean((counts - rate) ** 2 / rate) > 2
    assert abs(counts.sum() / rate.sum() - 1) < 0.05


def test_some_client_bursts_and_volumes_fall_off_steeply() -> None:
    counts = generate_counts(0, SMALL).counts
    assert (counts.max(axis=0) > 4 * counts.mean(axis=0)).any()
    totals = counts.sum(axis=0)
    assert totals[0] > 3 * totals[-1]


def test_lengths_are_spread_and_capped() -> None:
    requests = generate_requests(0, SMALL)
    assert requests.prompt_tokens.min() >= 1
    assert requests.prompt_tokens.max() <= 1024
    assert requests.output_tokens.max() <= 512
    assert requests.prompt_tokens.std() > 100
