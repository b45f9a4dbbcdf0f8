"""Tokens: made once, for their owner alone, never empty."""

import resource
import stat
import subprocess
import sys
from pathlib import Path

from placement.tokens import token_in


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.token"
    token = token_in(path)
    assert len(token) >= 32
    assert token_in(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.token"]


def test_an_empty_file_is_no_token(tmp_path: Path) -> None:
    """An empty token would open the door to whoever brings none."""
    path = tmp_path / "a.token"
    path.write_text("\n")
    path.chmod(0o644)
    assert len(token_in(path)) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_no_half_token(tmp_path: Path) -> None:
    path = tmp_path / "a.token"
    code = (
        "import sys, pathlib; from placement.tokens import token_in; "
        "token_in(pathlib.Path(sys.argv[1]))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large" in made.stderr
    assert not path.exists()
    assert len(token_in(path)) >= 32, "with room again, it is made"
