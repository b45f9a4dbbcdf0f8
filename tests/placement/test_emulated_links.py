"""Loads that share the links of a node: nobody is starved, nothing is carried twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.edges import DEFAULT_LINKS, Edge, Link, Transfer
from placement.engines.emulated_links import Movers
from tests.builders import GB

US = 1_000_000


def test_two_loads_share_the_link_and_the_second_speeds_up_when_the_first_ends() -> None:
    movers = Movers(DEFAULT_LINKS)
    disk = DEFAULT_LINKS.disk
    movers.begin("a", Edge(fixed_us=0, transfers=(_leg(Link.DISK, disk),)), 0)
    movers.begin("b", Edge(fixed_us=0, transfers=(_leg(Link.DISK, 2 * disk),)), 0)
    ended = []
    while (next_us := movers.next_us()) is not None:
        ended += movers.advance(next_us)
    assert [e.key for e in ended] == ["a", "b"]
    assert ended[0].at_us == pytest.approx(2 * US, abs=5)
    assert ended[1].at_us == pytest.approx(3 * US, abs=5)


def _leg(link: Link, n_bytes: int, streams: int = 1) -> Transfer:
    return Transfer(link=link, bytes_per_stream=n_bytes, streams=streams)


loads = st.lists(
    st.tuples(st.integers(0, 5 * US), st.integers(1, 40 * GB), st.integers(1, 4)),
    min_size=1,
    max_size=8,
)


@given(loads=loads)
def test_no_link_ever_carries_more_than_it_can(loads: list[tuple[int, int, int]]) -> None:
    movers = Movers(DEFAULT_LINKS)
    ends: dict[str, int] = {}
    coming = sorted((at, i, n, streams) for i, (at, n, streams) in enumerate(loads))
    began_us = coming[0][0]
    while coming or movers.next_us() is not None:
        next_us = movers.next_us()
        if coming and (next_us is None or coming[0][0] <= next_us):
            at, i, n_bytes, streams = coming.pop(0)
            ends |= {e.key: e.at_us for e in movers.advance(at)}
            movers.begin(
                str(i), Edge(fixed_us=0, transfers=(_leg(Link.H2D, n_bytes, streams),)), at
            )
        elif next_us is not None:
            ends |= {e.key: e.at_us for e in movers.advance(next_us)}
    assert len(ends) == len(loads)
    moved = sum(n * streams for _, n, streams in loads)
    seconds = (max(ends.values()) - began_us) / US
    assert moved <= DEFAULT_LINKS.h2d_total * seconds * (1 + 1e-6) + GB / 1000
    for i, (at, n_bytes, _) in enumerate(loads):
        assert n_bytes / DEFAULT_LINKS.h2d_stream <= (ends[str(i)] - at) / US + 1e-5
