"""From counts to request times: exact thinning, seeded draws, the deal of streams to models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import (
    Caps,
    Lengths,
    Span,
    busiest,
    choose_models,
    cut,
    deal,
    schedule,
    volumes,
)
from loadtests.draws import renewal_within, stream
from loadtests.errors import AskedError
from prewarm.traces.records import HOUR_US, US, Counts, Requests

BIN_US = 600 * US


def counts(*rows: tuple[int, ...]) -> Counts:
    table = np.array(rows, np.int64)
    return Counts(
        start_us=0,
        width_us=BIN_US,
        streams=tuple(f"c{i}" for i in range(table.shape[1])),
        counts=table,
        holes=np.zeros(table.shape, np.bool_),
    )


def requests(*at_s: float) -> Requests:
    at_us = np.array([round(s * US) for s in at_s], np.int64)
    return Requests(
        start_us=int(at_us[0]),
        at_us=at_us,
        streams=("requests",),
        stream=np.zeros(len(at_us), np.int64),
        prompt_tokens=np.arange(1, len(at_us) + 1),
        output_tokens=np.full(len(at_us), 9),
        prefix_blocks=tuple((i,) for i in range(len(at_us))),
    )


tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 40)] * width), min_size=1, max_size=8)
)


@given(
    tables, st.integers(0, 400), st.integers(0, 3), st.integers(0, 4 * 600), st.integers(1, 5000)
)
def test_thinning_keeps_exactly_the_limit_or_all(
    rows: list[tuple[int, ...]], limit: int, seed: int, start_s: int, duration_s: int
) -> None:
    trace = counts(*rows)
    span = Span(min(start_s * US, trace.duration_us - 1), duration_s * US)
    found = cut(trace, span, limit, seed)
    assert len(found.kept) == min(limit, found.held)
    assert found.held <= trace.counts.sum()
    assert (np.diff(found.kept.at_us) >= 0).all()
    assert ((found.kept.at_us >= 0) & (found.kept.at_us < span.duration_us)).all()


def test_without_a_limit_every_count_becomes_a_request_in_its_own_bin() -> None:
    trace = counts((5, 0), (0, 3), (2, 2))
    kept = cut(trace, Span(0, trace.duration_us), None, seed=1).kept
    again = np.zeros_like(trace.counts)
    np.add.at(again, (kept.at_us // BIN_US, kept.stream), 1)
    assert again.tolist() == trace.counts.tolist()


def test_the_thinned_are_spread_over_the_slice_and_never_simply_the_first() -> None:
    trace = counts(*[(1000,)] * 6)
    kept = cut(trace, Span(0, trace.duration_us), 600, seed=0).kept
    per_bin = np.bincount(kept.at_us // BIN_US, minlength=6)
    assert per_bin.sum() == 600
    assert (per_bin > 50).all()


def test_same_seed_same_times_and_another_seed_others() -> None:
    trace = counts((50, 9), (70, 1))
    span = Span(0, trace.duration_us)
    first, again, other = (cut(trace, span, 60, seed).kept.at_us.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_a_stream_more_does_not_move_the_times_of_the_others() -> None:
    alone = cut(counts((50,)), Span(0, BIN_US), None, seed=0).kept
    both = cut(counts((50, 20)), Span(0, BIN_US), None, seed=0).kept
    assert both.at_us[both.stream == 0].tolist() == alone.at_us.tolist()


def test_renewals_clump_more_than_poisson_and_have_no_edges() -> None:
    rng = stream(0, "test")
    moments = [renewal_within(rng, 200) for _ in range(200)]
    per_cell = np.array([np.histogram(m, bins=20, range=(0, 1))[0] for m in moments])
    assert per_cell.var() > 2 * per_cell.mean()
    edge, middle = per_cell[:, [0, -1]].mean(), per_cell[:, 5:15].mean()
    assert abs(edge - middle) < 0.15 * middle
    assert renewal_within(rng, 0).size == 0


def test_a_bin_half_inside_the_slice_gives_about_half() -> None:
    trace = counts((1000,), (1000,))
    found = cut(trace, Span(BIN_US // 2, BIN_US), None, seed=0)
    assert 850 < found.held < 1150


def test_the_busiest_span_is_found_and_the_earliest_of_equals() -> None:
    trace = counts((1,), (9,), (9,), (1,), (9,), (9,))
    assert busiest(trace, 2 * BIN_US) == Span(BIN_US, 2 * BIN_US)
    assert busiest(trace, HOUR_US * 9) == Span(0, trace.duration_us)
    assert busiest(requests(0, 50, 60, 61, 300), 15 * US) == Span(50 * US, 15 * US)


def test_a_slice_of_requests_starts_at_zero_and_keeps_its_lengths_and_blocks() -> None:
    found = cut(requests(10, 20, 30, 40), Span(10 * US, 20 * US), None, seed=0)
    assert found.kept.at_us.tolist() == [0, 10 * US]
    assert found.kept.prompt_tokens.tolist() == [2, 3]
    assert found.kept.prefix_blocks == ((1,), (2,))
    assert len(cut(requests(*range(50)), Span(0, 50 * US), 7, seed=0).kept) == 7


def test_streams_are_dealt_by_volume_and_named_ones_go_where_told() -> None:
    by_volume = volumes(counts((1, 30, 20, 4)))
    assert deal(by_volume, ["a", "b"], {}) == {"c1": "a", "c2": "b", "c3": "a", "c0": "b"}
    assert deal(by_volume, ["a"], {"c1": "z"}) == {"c1": "z", "c2": "a", "c3": "a", "c0": "a"}


def test_a_stream_that_bears_a_models_name_is_dealt_to_it() -> None:
    """As an exported history has them: a replay of one's own day sends it where it went."""
    assert deal({"b": 9, "x": 5, "a": 1}, ["a", "b"], {}) == {"b": "b", "a": "a", "x": "a"}
    assert deal({"b": 9, "a": 1}, ["a", "b"], {"b": "a"}) == {"b": "a", "a": "a"}


def test_an_unknown_name_is_told_with_the_closest_ones() -> None:
    with pytest.raises(AskedError, match="no stream 'c9'; it has c0"):
        deal({"c0": 1}, ["a"], {"c9": "a"})
    with pytest.raises(AskedError, match=r"no model 'lama-8b'; it has llama-8b"):
        choose_models(["lama-8b"], [], ["llama-8b", "qwen"], [])
    with pytest.raises(AskedError, match="no model is left"):
        deal({"c0": 1}, [], {})


def test_wanted_models_come_in_catalog_order_and_default_otherwise() -> None:
    known = ["a", "b", "real"]
    assert choose_models(["b", "a"], [], known, ["a"]) == ["a", "b"]
    assert choose_models([], ["real"], known, ["a", "b"]) == ["a", "b"]


def test_lengths_are_the_traces_or_drawn_and_capped_either_way() -> None:
    own = cut(requests(0, 1, 2), Span(0, 3 * US), None, seed=0).kept
    capped = schedule(own, {"requests": "a"}, 0, Caps(2, 5))
    assert capped.prompt_tokens.tolist() == [1, 2, 2]
    assert capped.output_tokens.tolist() == [5, 5, 5]
    bare = cut(counts((400,)), Span(0, BIN_US), None, seed=0).kept
    drawn = schedule(bare, {"c0": "a"}, 0)
    assert drawn.prompt_tokens.max() <= 1024
    assert drawn.output_tokens.max() <= 512
    assert 350 < drawn.prompt_tokens.mean() < 600
    assert 100 < drawn.output_tokens.mean() < 200
    pairs = Lengths(np.array([10, 20]), np.array([1, 2]))
    sampled = schedule(bare, {"c0": "a"}, 0, lengths=pairs)
    assert (sampled.prompt_tokens == 10 * sampled.output_tokens).all()
