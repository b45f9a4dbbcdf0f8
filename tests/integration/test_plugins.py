"""Packages that add commands and checks: found, completed, and no danger to the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running import warmtide

pytestmark = pytest.mark.integration

CODE = '''
import typer
from gateway.doctor.finding import fail, ok

def hello(name: str = "you") -> None:
    """Greet somebody."""
    print(f"hello {name}")

tides = typer.Typer(help="Look at the tide.", no_args_is_help=True)

@tides.command()
def high(port: str = "home") -> None:
    """When it is high."""
    print(f"high at {port}")

@tides.command()
def low() -> None:
    """When it is low."""

def check(setup):
    yield ok("greeting", f"for {setup.host}")

def faint(setup):
    raise RuntimeError("fainted")
    yield
'''
ENTRIES = """[warmtide.commands]
hello = greeter:hello
tides = greeter:tides
broken = greeter:nothing_of_that_name
[warmtide.checks]
greeting = greeter:check
fainting = greeter:faint
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment with a package of somebody else's in it."""
    (tmp_path / "greeter.py").write_text(CODE)
    info = tmp_path / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_plug_ins_command_stands_beside_ours(installed: dict[str, str]) -> None:
    told = warmtide("--help", env=installed)
    assert told.code == 0
    for words in ("Greet somebody.", "Cannot be loaded", "doctor", "replay"):
        assert words in told.out
    hello = warmtide("hello", "--name", "tide", env=installed)
    assert (hello.code, hello.out) == (0, "hello tide\n")


def test_a_plug_in_may_be_a_group_with_help_and_completion(installed: dict[str, str]) -> None:
    assert "Look at the tide." in warmtide("--help", env=installed).out
    told = warmtide("tides", "--help", env=installed).out
    assert "When it is high." in told
    assert "--install-completion" not in told
    high = warmtide("tides", "high", "--port", "Cuxhaven", env=installed)
    assert (high.code, high.out) == (0, "high at Cuxhaven\n")
    assert warmtide("tides", "ebb", env=installed).code == 2
    asked = {"_WARMTIDE_COMPLETE": "complete_bash", "COMP_WORDS": "warmtide tides h"}
    done = subprocess.run(
        [Path(sys.executable).with_name("warmtide")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **installed, **asked, "COMP_CWORD": "2"},
    )
    assert done.stdout.split() == ["high"]


def test_a_broken_plug_in_breaks_its_own_command_only(installed: dict[str, str]) -> None:
    broken = warmtide("broken", env=installed)
    assert broken.code == 1
    assert "nothing_of_that_name" in broken.err
    assert "package greeter" in broken.err
    assert "Traceback" not in broken.err
    assert warmtide("version", "--json", env=installed).code == 0


def test_plug_ins_checks_join_and_one_that_breaks_is_a_finding(
    installed: dict[str, str], tmp_path: Path
) -> None:
    flags = ("--json", "--port", "0", "--admin-port", "0", "--state-dir", tmp_path / "state")
    doctor = warmtide("doctor", *flags, env=installed)
    assert doctor.code == 1
    found = {c["check"]: c for c in doctor.document["checks"]}
    assert found["greeting"]["found"] == "for 127.0.0.1"
    assert "RuntimeError: fainted" in found["fainting"]["found"]
    assert found["plug-ins"]["status"] == "warn"
    assert "nothing_of_that_name" in found["plug-ins"]["found"]
    assert found["traces"]["status"] == "ok"


def test_help_and_completions_load_nothing_that_is_slow() -> None:
    """What takes time to import is left to the commands that need it."""
    slow = "{'pydantic', 'httpx', 'numpy', 'starlette', 'uvloop', 'asyncio', 'yaml'}"
    code = (
        "import sys, typer.testing\n"
        "from gateway.main import cli\n"
        "done = typer.testing.CliRunner().invoke(cli, ['--help'])\n"
        "assert 'replay' in done.output, done.output\n"
        f"print(sorted({slow} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
