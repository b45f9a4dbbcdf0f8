"""A catalog that wants vLLM on a machine where it is not to be found."""

from pathlib import Path

import pytest

from tests.integration.running import catalog_text, processes_over, warmtide

pytestmark = pytest.mark.integration

MODEL = {"id": "m", "engine": "vllm", "source": "org/m", "weights": "1 GB", "kv_cache": "1 GB"}
NODE = {"id": "n0", "gpus": 1, "gpu": "H100-80GB", "host_memory": "64 GB"}


def test_up_says_where_it_looked_and_how_to_install_it(tmp_path: Path) -> None:
    text = catalog_text([MODEL], nodes=[NODE])
    named = text.replace("fleet:\n", "fleet:\n  vllm_python: /nowhere/bin/python\n")
    (tmp_path / "catalog.yaml").write_text(named)
    ended = warmtide(
        *("up", "--catalog", tmp_path / "catalog.yaml", "--state-dir", tmp_path / "state"),
        *("--port", "0", "--admin-port", "0"),
    )
    assert ended.code == 1
    for words in ("/nowhere/bin/python does not exist", "make setup-vllm", "fleet.vllm_python"):
        assert words in ended.err
    assert not processes_over(tmp_path)
