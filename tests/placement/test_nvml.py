"""Measured GPU memory: the real pynvml over a library of two GPUs, and over none at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
GIVEN = 34_000_000_000

_ASK = "import json; from placement.agent import nvml; print(json.dumps(nvml.used_bytes()))"
_MEASURE = """
import asyncio, json, sys
from pathlib import Path
from placement.agent import nvml
from placement.engines.vllm_driver import VllmDriver
from tests.placement.vllm_worlds import driver, pretend
folder, visible = Path(sys.argv[1]), sys.argv[2]
real, cpu = driver(folder / "a", visible, nvml.used_bytes), driver(
    folder / "b", visible, nvml.used_bytes, gpu_type="CPU")
before = asyncio.run(real.gpu_used_bytes())
pretend(folder / "a", gpu_ids=(0, 1))
pretend(folder / "b", gpu_ids=(0, 1))
print(json.dumps([before, asyncio.run(real.gpu_used_bytes()), asyncio.run(cpu.gpu_used_bytes())]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `libnvidia-ml.so.1`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "install gcc: it builds a management library of two GPUs"
    folder = tmp_path_factory.mktemp("nvml")
    out = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", out, SOURCE], check=True)
    return folder


def python(code: str, *arguments: str, library: Path) -> str:
    """Run in a process of its own: a loaded library stays for as long as a process lives."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_each_gpu_is_found_by_its_number_and_by_its_name(library: Path) -> None:
    used = json.loads(python(_ASK, library=library))
    assert used == {"0": GIVEN, "GPU-0": GIVEN, "1": 0, "GPU-1": 0}


def test_no_driver_is_a_state_and_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert json.loads(python(_ASK, library=tmp_path)) == {}


@pytest.mark.parametrize(
    ("visible", "measured"),
    [
        ("", {"0": GIVEN, "1": 0}),
        ("1,0", {"0": 0, "1": GIVEN}),
        ("GPU-1,GPU-0", {"0": 0, "1": GIVEN}),
    ],
)
def test_only_gpus_that_engines_of_ours_hold_are_measured(
    library: Path, tmp_path: Path, visible: str, measured: dict[str, int]
) -> None:
    """Before the first engine, and on a node without GPUs, this machine's GPUs are not ours."""
    said = json.loads(python(_MEASURE, str(tmp_path), visible, library=library))
    assert said == [{}, measured, {}]
