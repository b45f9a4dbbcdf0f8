"""One slice through real processes and sockets, and through the simulator: counts agree."""

from pathlib import Path

import pytest

from loadtests.arrivals import Caps
from loadtests.twin import CATALOG, twin
from loadtests.workload import Asked

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_the_simulator_and_a_live_emulated_fleet_tell_the_same_story() -> None:
    """Same controller, ledger, edges and batches on both sides. Only counts are asserted: how long
    things took on this machine is for the report."""
    asked = Asked("14h", "3m", 300, (), {}, 3, Caps())
    found = twin("generated", asked, ROOT / CATALOG, speed=4.0)
    assert found.requests > 50
    assert found.live.answered == found.simulated.answered == found.requests
    assert found.simulated.cold_starts > 0
    apart = abs(found.live.cold_starts - found.simulated.cold_starts)
    assert apart <= max(2, 0.15 * found.simulated.cold_starts), found
