"""What a fleet of emulated engines costs: 128 idle replicas on 16 GPUs, in five processes."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.running import (
    SAFETY_S,
    Gateway,
    catalog_text,
    emulated,
    running,
    serves,
    until,
)

pytestmark = pytest.mark.heavy

REPLICAS = 128
MODELS = 8
RSS_BYTES_MAX = 300_000_000
NODES = [
    {"id": "n", "count": 2, "gpus": 8, "gpu": "H100-80GB", "host_memory": "512 GB"},
]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    tiny = {"weights": "1 GB", "kv_cache": "1 GB", "min_replicas": REPLICAS // MODELS}
    text = catalog_text([emulated(f"tiny-{i}", **tiny) for i in range(MODELS)], nodes=NODES)
    with running(tmp_path, text, time_scale=50.0) as up:
        yield up


def ready(gateway: Gateway) -> int:
    rows = gateway.status()["models"]
    return sum(serves(replica) for row in rows for replica in row["replicas"])


def test_128_idle_replicas_fit_beside_a_gateway_in_300_mb(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    until(lambda: ready(gateway) == REPLICAS, f"{REPLICAS} replicas serve")
    status = gateway.status()
    assert all(gpu["reserved_bytes"] > 0 for node in status["nodes"] for gpu in node["gpus"])
    with httpx.Client(trust_env=False, timeout=SAFETY_S) as http:
        for row in status["models"]:
            body = {"model": row["model"], "prompt": "hi", "max_tokens": 4}
            assert http.post(f"{gateway.url}/v1/completions", json=body).status_code == 200
    processes = gateway.processes()
    assert len(processes) == 5, "a gateway, two agents, two engine-hosts"
    rss_bytes = unique_bytes = 0
    told = []
    for identity, line in processes.items():
        memory = psutil.Process(identity.pid).memory_full_info()
        rss_bytes += memory.rss
        unique_bytes += memory.uss
        name = next((arg for arg in line.split() if "." in arg and "/" not in arg), "?")
        told.append(f"  {name:<34} RSS {memory.rss / 1e6:6.1f} MB, USS {memory.uss / 1e6:6.1f} MB")
    with capsys.disabled():
        print(f"\n{REPLICAS} idle replicas on 16 GPUs:", *sorted(told), sep="\n")  # noqa: T201
        print(f"  in all: RSS {rss_bytes / 1e6:.1f} MB, USS {unique_bytes / 1e6:.1f} MB")  # noqa: T201
    assert rss_bytes < RSS_BYTES_MAX
