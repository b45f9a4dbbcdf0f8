"""One running fleet for the tests of agents and of the local fleet."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.placement.fleet_bench import Bench, running


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as found:
        yield found
