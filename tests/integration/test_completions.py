"""Completions as bash and zsh ask for them: the script that is installed, and its answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running import SAFETY_S, catalog_text, emulated, running

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
ASK = """
eval "$(warmtide --show-completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_warmtide_completion warmtide
printf '%s\\n' "${COMPREPLY[@]}"
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        **{"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)},
        **{"XDG_STATE_HOME": str(home), "SHELL": "/bin/bash"},
        # The shell is named: looking for it among all processes fails where one ends meanwhile.
        **{"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **more},
    }


def in_bash(script: str, *words: str, home: Path) -> str:
    """The output of a script in a real bash that knows nothing else."""
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        timeout=SAFETY_S,
        env=environment(home),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(*words: str, home: Path) -> list[str]:
    """What bash offers for the last word."""
    return in_bash(ASK, "warmtide", *words, home=home).split()


def zsh(line: str, home: Path) -> str:
    """What the script for zsh evaluates."""
    more = {"_WARMTIDE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [str(BIN / "warmtide")],
        capture_output=True,
        text=True,
        timeout=SAFETY_S,
        env=environment(home, **more),
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Somebody without settings, with a catalog of their own."""
    (tmp_path / "mine.yaml").write_text(catalog_text([emulated("mine-8b"), emulated("my-70b")]))
    return tmp_path


def test_commands_options_and_values(home: Path) -> None:
    assert {"up", "down", "status", "doctor", "catalog", "key", "replay"} <= set(
        bash("", home=home)
    )
    assert bash("doc", home=home) == ["doctor"]
    assert {"check", "show", "apply", "schema"} == set(bash("catalog", "", home=home))
    assert {"--detach", "--catalog", "--fleet"} <= set(bash("up", "--", home=home))
    assert bash("up", "--fleet", "", home=home) == ["local"]
    assert "generated" in bash("replay", "", home=home)
    assert {"backtest", "show", "scoreboard"} == set(bash("forecast", "", home=home))
    slow = ("forecast", "backtest", "generated", "--with")
    assert bash(*slow, "prophet,ms", home=home) == ["prophet,mstl"]
    assert {"--map", "--demo"} <= set(bash("replay", "--", home=home)), "a plug-in's options"


def test_models_come_from_the_catalog_that_was_named(home: Path) -> None:
    named = ("replay", "--catalog", str(home / "mine.yaml"))
    assert bash(*named, "--models", "", home=home) == ["mine-8b", "my-70b"]
    assert bash(*named, "--models", "mine-8b,m", home=home) == ["mine-8b,my-70b"]
    assert bash(*named, "--map", "c0=my", home=home) == ["c0=my-70b"]
    assert bash(*named, "--map", "c0", home=home) == [], "streams are the trace's"
    assert "qwen3-8b" in bash("replay", "--models", "qwen3-8b", home=home), "else the shipped one"
    (home / "mine.yaml").write_text("models: 3\n")
    assert bash(*named, "--models", "", home=home) == [], "a bad catalog offers nothing"


def test_models_come_from_the_gateway_that_runs(home: Path) -> None:
    with running(home, catalog_text([emulated("now-here")]), time_scale=50) as gateway:
        asked = ("replay", "--state-dir", str(gateway.state_dir), "--models", "")
        assert bash(*asked, home=home) == ["now-here"]


def test_where_we_have_no_words_the_shell_offers_files(home: Path) -> None:
    assert bash("up", "--catalog", "mi", home=home) == []
    script = 'eval "$(warmtide --show-completion bash)"; complete -p warmtide'
    assert "-o default" in in_bash(script, home=home), "bash then completes files"
    assert zsh("warmtide up --catalog mi", home) == "_files\n"
    assert zsh("warmtide catalog check ", home) == "_files\n"


def test_zsh_hears_values_with_what_they_mean(home: Path) -> None:
    assert '"doctor":"Look at everything' in zsh("warmtide do", home)
    assert '"local"' in zsh("warmtide up --fleet l", home)
    assert '"c0=mine-8b"' in zsh(f"warmtide replay --catalog {home}/mine.yaml --map c0=mi", home)
    assert '"--models":' in zsh("warmtide replay --mo", home)


def test_installing_writes_the_script_and_names_it_in_the_settings(home: Path) -> None:
    in_bash("warmtide --install-completion bash", home=home)
    installed = home / ".bash_completions" / "warmtide.sh"
    assert str(installed) in (home / ".bashrc").read_text()
    after = f"source {installed}; complete -p warmtide"
    assert "_warmtide_completion" in in_bash(after, home=home)
