"""Masks of futures, and the parts of bins that a time spans."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from placement.catalog import ModelId
from placement.planning.outlook import ModelOutlook, Outlook
from prewarm.foresight.needs import masks, needed, pieces
from prewarm.traces.records import Ints

US = 1_000_000
WIDTH_US = 300 * US


def outlook(counts: Ints) -> Outlook:
    models = {
        f"m{i}": ModelOutlook(model_id=ModelId(f"m{i}"), need=(one,))
        for i, one in enumerate(masks(counts))
    }
    return Outlook(made_us=0, horizons_us=(10 * US,), paths=len(counts), models=models)


def test_bits_stand_for_paths_the_first_one_highest() -> None:
    counts = np.array([[1], [0], [3], [2], [0], [0], [0], [1]])
    said = outlook(counts)
    assert [f"{said.mask('m0', k, US):08b}" for k in (1, 2, 3, 4)] == [
        "10110001",
        "00110000",
        "00100000",
        "00000000",
    ]
    assert said.share(said.mask("m0", 1, US)) == 0.5


@given(
    some.arrays(
        np.int64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(0, 5)
    )
)
def test_masks_say_back_what_was_needed_on_every_path(counts: Ints) -> None:
    said = outlook(counts)
    for model in range(counts.shape[1]):
        for k in range(1, 7):
            share = said.share(said.mask(f"m{model}", k, US))
            assert share == pytest.approx(float((counts[:, model] >= k).mean()))
            more, fewer = (said.mask(f"m{model}", count, US) for count in (k + 1, k))
            assert more & fewer == more


def test_replicas_are_as_many_as_slots_call_for_up_to_the_most() -> None:
    peaks = np.array([[0.0, 10.0, 11.0, 500.0]])
    assert needed(peaks, np.array([10, 10, 10, 10]), np.array([8, 8, 8, 8])).tolist() == [
        [0, 1, 2, 8]
    ]


def test_a_time_spans_what_is_left_of_this_bin_and_parts_of_the_next_ones() -> None:
    spans = pieces(1000 * US, WIDTH_US, 1200 * US, 500 * US)
    assert spans == [(0, 100 * US), (1, 300 * US), (2, 100 * US)]


@given(st.integers(0, 400), st.integers(1, 4000))
def test_the_parts_make_up_the_time(since_s: int, within_s: int) -> None:
    spans = pieces(0, WIDTH_US, since_s * US, within_s * US)
    assert sum(length_us for _, length_us in spans) == within_s * US
    assert [at for at, _ in spans] == sorted({at for at, _ in spans})
    assert all(0 < length_us <= WIDTH_US for _, length_us in spans)
