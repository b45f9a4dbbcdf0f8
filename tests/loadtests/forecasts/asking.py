"""How tests ask the command: its result, its document, a file of counts to ask about."""

import json
from math import sin, tau
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loadtests.forecasts.cli import app


def forecast(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def told(*arguments: object) -> dict[str, Any]:
    """The document, which must be one that every program can read: JSON knows no NaN."""
    done = forecast(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=pytest.fail)
    return found


def counts(days: int = 10, streams: int = 2, width_s: int = 1800) -> str:
    """People by day, with ripples that differ from stream to stream."""
    head = ",".join(["t_s", *(f"s{at}" for at in range(streams))])
    bins = days * 86_400 // width_s
    rows = (
        ",".join(
            [str(width_s * t), *(str(_asked(t * width_s, t, stream)) for stream in range(streams))]
        )
        for t in range(bins)
    )
    return "\n".join([head, *rows]) + "\n"


def _asked(at_s: int, t: int, stream: int) -> int:
    by_day = 1.2 + sin(tau * at_s / 86_400)
    return round((20 + 15 * stream) * by_day) + (t * (7 + stream)) % 5
