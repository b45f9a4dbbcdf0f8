"""Processes of a study: side by side, one crash costs one item, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loadtests.study.pool import Told, each_in_a_process

HALF_A_MINUTE_S = 30.0


def note(item: tuple[Path, str], told: Told) -> None:
    """Work of several kinds, as the item says."""
    folder, kind = item
    (folder / f"{kind}.pid").write_text(str(os.getpid()))
    told(0.5)
    if kind == "raise":
        raise ValueError("this one is broken")
    if kind == "crash":
        os._exit(7)
    if kind == "sleep":
        time.sleep(HALF_A_MINUTE_S)


def run(folder: Path, *kinds: str, jobs: int = 2) -> dict[str, str]:
    items = [(folder, kind) for kind in kinds]
    ended = each_in_a_process(note, items, jobs, lambda *_: None)
    return {kinds[one.place]: one.error for one in ended}


def test_what_goes_wrong_costs_one_item_and_is_told(tmp_path: Path) -> None:
    found = run(tmp_path, "fine", "raise", "crash", "good")
    assert (found["fine"], found["good"]) == ("", "")
    assert "ValueError: this one is broken" in found["raise"]
    assert "ended with code 7" in found["crash"]


def test_every_item_has_a_process_of_its_own_and_shares_are_told(tmp_path: Path) -> None:
    shares: list[tuple[int, float]] = []
    items = [(tmp_path, "a"), (tmp_path, "b")]
    list(each_in_a_process(note, items, 1, lambda *one: shares.append(one)))
    pids = {(tmp_path / f"{kind}.pid").read_text() for kind in "ab"}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    assert sorted(shares) == [(0, 0.5), (1, 0.5)]


def test_who_stops_listening_leaves_no_process_behind(tmp_path: Path) -> None:
    listening = each_in_a_process(
        note, [(tmp_path, "sleep"), (tmp_path, "good")], 2, lambda *_: None
    )
    assert next(listening).place == 1
    pid = wait_for_pid(tmp_path / "sleep.pid")
    listening.close()
    assert not psutil.pid_exists(pid)


SCRIPT = """
import sys
from pathlib import Path
from loadtests.study.pool import each_in_a_process
from tests.loadtests.test_study_pool import note

if __name__ == "__main__":
    list(each_in_a_process(note, [(Path(sys.argv[1]), "sleep")], 1, lambda *_: None))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_however_we_end_our_processes_end_too(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pid = wait_for_pid(tmp_path / "sleep.pid")
    parent.send_signal(how)
    parent.wait(timeout=HALF_A_MINUTE_S)
    wait_until_gone(pid)


def wait_for_pid(file: Path) -> int:
    for _ in range(int(HALF_A_MINUTE_S / 0.05)):
        if file.is_file() and (text := file.read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"{file.name} was never written")


def wait_until_gone(pid: int) -> None:
    """Well before its own sleep is over."""
    try:
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=HALF_A_MINUTE_S / 2)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return
    assert not alive, f"{pid} outlived its parent"
