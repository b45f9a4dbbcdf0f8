"""One pair of real vLLM engines for the whole suite, behind a real `warmtide up`.

Nothing is skipped: without `.venv-vllm` the suite fails and says how to build it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.fleet import Fleet, make_tiny_model, running


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and an adapter for it."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def fleet(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Up, and cold: the first request to a model starts its engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with running(tmp_path_factory.mktemp("fleet"), tiny) as found:
            yield found
