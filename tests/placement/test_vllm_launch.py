"""How a vLLM server is started: what it is told, what the operator may add, where it listens."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import Adapter
from placement.catalog_file import CatalogError, parse_catalog
from placement.edges import footprint_bytes
from placement.engines.vllm_guard.warmtide_guard import OPEN
from placement.engines.vllm_launch import (
    MODULE,
    Ground,
    Ports,
    arguments,
    devices,
    environment,
    utilisation,
)
from placement.engines.vllm_ports import free_ports
from placement.vllm_flags import OWNED, refused
from tests.builders import GB
from tests.placement.vllm_worlds import vllm

PORTS = Ports(api=21_000, inner=21_001)
GROUND = Ground(hbm_bytes=80 * GB, cache="/state/cache", guard="/guard", token_file="/state/token")
TUNED = (Adapter(id="tuned", source="/adapters/tuned"),)


def env(inherited: dict[str, str], *, gpu_ids: tuple[int, ...] = (1,), **changes: Any) -> Any:
    return environment(inherited, vllm(**changes), gpu_ids, PORTS, GROUND)


# What it is told


def test_a_server_on_a_gpu() -> None:
    spec = vllm("org/name:8b", gpus=2, max_model_len=4096, engine_args=("--dtype=half",))
    told = arguments(spec, PORTS, GROUND)
    assert told[:2] == ["-m", MODULE]
    assert told[-1] == "--dtype=half", "the operator's come last"
    assert {
        "--model=org/tiny",
        "--served-model-name=org/name:8b",
        "--host=127.0.0.1",
        "--port=21000",
        "--middleware=warmtide_guard.Guard",
        "--max-model-len=4096",
        "--max-num-seqs=32",
        "--tensor-parallel-size=2",
        f"--kv-cache-memory-bytes={20 * GB}",
        "--enable-sleep-mode",
    } <= set(told)
    assert not [a for a in told if "lora" in a]


def test_a_server_on_the_cpu_has_no_sleep_mode_and_claims_no_share_of_a_gpu() -> None:
    told = arguments(vllm(on_cpu=True), PORTS, GROUND)
    assert not [a for a in told if "sleep" in a or "utilization" in a]
    assert f"--kv-cache-memory-bytes={20 * GB}" in told


def test_adapters_are_switched_on_where_there_are_some() -> None:
    told = arguments(vllm(adapters=TUNED), PORTS, GROUND)
    assert {"--enable-lora", "--max-loras=1"} <= set(told)
    assert env({}, adapters=TUNED)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in env({})


@given(weights_gb=st.integers(1, 60), kv_gb=st.integers(0, 20))
def test_the_utilisation_asks_for_no_more_than_the_ledger_reserved(
    weights_gb: int, kv_gb: int
) -> None:
    spec = vllm(weights_bytes=weights_gb * GB, kv_cache_bytes=kv_gb * GB)
    share = float(utilisation(spec, GROUND))
    assert 0 < share < 1
    assert share * GROUND.hbm_bytes <= footprint_bytes(spec)
    assert share >= min(footprint_bytes(spec) / GROUND.hbm_bytes, 0.999) - 0.001


def test_a_name_is_never_read_as_a_flag() -> None:
    told = arguments(vllm(source="--api-key"), PORTS, GROUND)
    assert "--model=--api-key" in told
    assert "--api-key" not in told


# Its environment


def test_traps_of_the_environment_are_left_behind() -> None:
    traps = {
        "VLLM_API_KEY": "secret",
        "VLLM_CPU_KVCACHE_SPACE": "40",
        "VLLM_HOST_IP": "10.0.0.1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_ALLOC_CONF": "max_split_size_mb:64",
        "HF_HOME": "/models",
    }
    found = env(traps)
    assert traps.keys() & found.keys() == {"PYTORCH_ALLOC_CONF", "HF_HOME"}


def test_it_finds_the_guard_and_nothing_that_lies_in_its_working_directory() -> None:
    assert env({})["PYTHONPATH"] == "/guard"
    assert env({"PYTHONPATH": "/mine"})["PYTHONPATH"] == "/guard:/mine"
    assert env({})["PYTHONSAFEPATH"] == "1"


def test_its_gpus_are_counted_as_nvml_counts_them() -> None:
    found = env({}, gpu_ids=(2, 3))
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_an_agent_that_sees_some_gpus_hands_down_their_own_names() -> None:
    assert devices({"CUDA_VISIBLE_DEVICES": "4,5"}, (1,)) == ["5"]
    assert devices({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, (0, 1)) == ["GPU-a", "GPU-b"]


def test_engines_on_the_cpu_do_not_pin_themselves_to_the_same_cores() -> None:
    found = env({}, on_cpu=True)
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "CUDA_VISIBLE_DEVICES" not in found
    mine = {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}
    assert env(mine, on_cpu=True)["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"


# Its ports


def test_two_replicas_never_get_the_same_block() -> None:
    first = free_ports(set(), "r0")
    second = free_ports({first.api}, "r0")
    assert abs(first.api - second.api) >= 32
    assert first.inner == first.api + 1
    assert max(first.api, second.api) + 32 < 32_768, "the kernel gives out ports from there"


def test_a_port_that_somebody_holds_is_passed_over() -> None:
    wanted = free_ports(set(), "r0").api
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", wanted))
        assert free_ports(set(), "r0").api != wanted


# What the operator may add


@given(
    flag=st.sampled_from(sorted(OWNED)),
    cut=st.integers(1, 40),
    value=st.sampled_from(["", "=1", ".key=1", "+=1"]),
    under=st.booleans(),
    no=st.booleans(),
)
def test_a_flag_of_ours_is_refused_however_it_is_written(
    flag: str, cut: int, value: str, under: bool, no: bool
) -> None:
    """vLLM's parser takes beginnings of names, underscores, and dots for keys within."""
    name = flag[:cut].rstrip("-")
    name = name.replace("-", "_") if under else name
    found = refused(f"--{'no-' if no else ''}{name}{value}")
    assert found is not None
    assert found.remedy


@pytest.mark.parametrize(
    "argument", ["-tp=2", "-tp", "-pp", "-dpn", "-n", "-r", "--dtype=a\nb", "--PORT=1"]
)
def test_short_forms_and_tricks_are_refused(argument: str) -> None:
    assert refused(argument) is not None


@pytest.mark.parametrize(
    "argument",
    [
        *(
            "--dtype=bfloat16",
            "--enforce-eager",
            "--quantization",
            "fp8",
            "-O3",
            "-q",
            "8000",
            "-1",
        ),
        *("--reasoning-parser=qwen3", "--enable-auto-tool-choice", "--max-lora-rank=128"),
        *("--model-impl=vllm", "--config-format=hf", "--compilation-config.level=3"),
        *("--max-num-batched-tokens=4096", "--trust-remote-code", "--no-enable-prefix-caching"),
    ],
)
def test_everything_else_is_for_vllm_to_judge(argument: str) -> None:
    assert refused(argument) is None


def catalog_with(argument: str, *, gpu: str = "H100-80GB") -> str:
    return f"""
models:
  - id: tiny
    engine: vllm
    source: org/tiny
    weights: 16 GB
    engine_args: ["--dtype=half", {argument!r}]
fleet:
  nodes:
    - {{id: n0, gpus: 2, gpu: {gpu}, hbm: 48 GB, host_memory: 256 GB}}
"""


def test_the_catalog_names_line_and_remedy() -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(catalog_with("--served_model_name=x"), "c.yaml")
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (7, "models[0].engine_args[1]")
    assert "--served-model-name" in problem.what
    assert "`id`" in problem.remedy


def test_the_nodes_decide_whether_vllm_runs_on_the_cpu() -> None:
    on_gpus = parse_catalog(catalog_with("--enforce-eager"), "c").models[0]
    on_cpu = parse_catalog(catalog_with("--enforce-eager", gpu="CPU"), "c").models[0]
    assert (on_gpus.on_cpu, on_cpu.on_cpu) == (False, True)
    assert footprint_bytes(on_cpu) < footprint_bytes(on_gpus)


def test_a_replica_takes_one_share() -> None:
    text = catalog_with("x", gpu="CPU").replace("engine: vllm", "engine: vllm\n    gpus: 2")
    with pytest.raises(CatalogError, match=r"models\[0\].gpus: a replica takes one share"):
        parse_catalog(text, "c")


def test_emulated_gpus_are_no_shares_of_a_memory() -> None:
    text = catalog_with("x", gpu="CPU").replace("engine: vllm", "engine: emulated")
    with pytest.raises(CatalogError, match="all nodes are of type CPU"):
        parse_catalog(text, "c")


def test_the_shipped_example_for_gpus_is_good() -> None:
    path = Path(__file__).parents[2] / "serve_configs" / "vllm-gpu.yaml"
    models = parse_catalog(path.read_text("utf-8"), path.name).models
    assert len(models) >= 2
    assert not any(m.on_cpu for m in models)


def test_the_example_of_the_page_is_good() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "vllm.md").read_text("utf-8")
    (example,) = (part.split("```")[0] for part in page.split("```yaml\n")[1:] if "fleet:" in part)
    (spec,) = parse_catalog(example, "docs/vllm.md").models
    assert spec.on_cpu


def test_the_page_lists_what_the_guard_lets_through() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "vllm.md").read_text("utf-8")
    (block,) = (part for part in page.split("```") if part.startswith("\nPOST "))
    posts, gets = block.split("GET")
    assert set(posts.split()) - {"POST"} == OPEN["POST"]
    assert set(gets.split()) == OPEN["GET"]
