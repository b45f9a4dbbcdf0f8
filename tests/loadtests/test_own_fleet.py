"""A replay over a real fleet of its own, in processes of their own, and nothing left of them."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import psutil
import pytest

from gateway.progress import Silent
from loadtests.fleet_process import FleetError, own_fleet
from loadtests.target import look_at

pytestmark = pytest.mark.heavy


async def started(*arguments: str, folder: Path) -> Process:
    """The command itself; its fleet's folder goes under `folder`, so that it can be told apart."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.main", "replay", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={"TMPDIR": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )


def alive_over(folder: Path) -> list[str]:
    """Processes whose command line names the folder."""
    found = (process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
    return [" ".join(line) for line in found if line and str(folder) in " ".join(line)]


def folders_left(folder: Path) -> list[Path]:
    return list(folder.glob("warmtide-replay-*"))


async def test_generated_demand_over_a_fleet_of_its_own_is_answered(tmp_path: Path) -> None:
    process = await started(
        *("generated", "--speed", "60", "--limit", "40", "--duration", "10m", "--json"),
        folder=tmp_path,
    )
    async with asyncio.timeout(240):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    document = json.loads(out)
    assert document["trace"] == "generated (0)"
    assert document["sent"] == 40
    assert document["sent"] == sum(
        document[outcome] for outcome in ("answered", "refused", "cancelled", "cut", "lost")
    )
    assert document["lost"] == 0
    assert document["answered"] >= 39
    assert document["cold_starts"] > 0
    assert "bge-m3" not in document["models"]
    assert alive_over(tmp_path) == []
    assert folders_left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_replay_ends_its_fleet(tmp_path: Path, number: signal.Signals) -> None:
    process = await started("generated", "--speed", "20", "--limit", "5", folder=tmp_path)
    async with asyncio.timeout(240):
        assert process.stderr is not None
        said = [await process.stderr.readline(), await process.stderr.readline()]
        assert b"starting a fleet" in said[1]
        process.send_signal(number)
        await process.communicate()
    assert process.returncode == 1
    assert alive_over(tmp_path) == []


async def test_the_fleet_tells_its_scale_and_what_it_serves() -> None:
    async with own_fleet(50.0, None, Silent()) as up:
        token = (Path(up.state_dir) / "admin.token").read_text()
        target = await look_at(up.url, up.admin_url, token, speed=50.0, api_key="")
        assert target.time_scale == up.time_scale == 50.0
        assert "smollm2-135m" in target.models
        assert "smollm2-135m" not in target.dealt_to()
        assert "llama-3.1-8b" in target.dealt_to()
    assert not psutil.pid_exists(up.pid)


async def test_a_fleet_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("models: 3\n")
    with pytest.raises(FleetError, match=r"expected a list") as caught:
        async with own_fleet(1.0, broken, Silent()):
            pass
    assert caught.value.bad_input
