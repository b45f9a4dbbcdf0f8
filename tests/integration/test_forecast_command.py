"""`warmtide forecast` as a process of its own, and the documented forecaster of one's own in it."""

import re
from pathlib import Path

import pytest

from tests.integration.running import warmtide
from tests.loadtests.forecasts.asking import counts

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "forecasting.md"

FAINTING = """
class Faint:
    def __init__(self, setting):
        pass

    def update(self, past):
        pass

    def points(self, past):
        raise RuntimeError("fainted")
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The package that docs/forecasting.md shows, word by word."""
    page = PAGE.read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [entry] = re.findall(r'^(double = )"(mine:Double)"$', page, re.MULTILINE)
    (tmp_path / "mine.py").write_text(code)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (tmp_path / "fainting.py").write_text(FAINTING)
    named = f"{''.join(entry)}\nfaint = fainting:Faint\n"
    (info / "entry_points.txt").write_text(f"[warmtide.forecasters]\n{named}")
    return {"PYTHONPATH": str(tmp_path)}


def test_the_documented_forecaster_competes(installed: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "counts.csv"
    file.write_text(counts(days=10, streams=1, width_s=3600))
    asked = ("forecast", "backtest", file, "--horizons", "60m", "--with", "double", "--json")
    told = warmtide(*asked, env=installed)
    assert told.code == 0, told.err
    [horizon] = told.document["streams"][0]["horizons"]
    mine = horizon["forecasters"]["double"]
    assert mine["n"] == horizon["n"] == 48
    # Its errors, of the size of what was asked, are undone by their own median, roughly.
    assert mine["wape"] > horizon["baselines"]["day"]["wape"]
    assert 0 <= horizon["method_share"]["double"] < 0.1


def test_the_scoreboard_has_everyone_and_says_who_failed(
    installed: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "counts.csv"
    file.write_text(counts(days=10, streams=1, width_s=3600))
    told = warmtide("forecast", "scoreboard", file, "--horizons", "60m", "--json", env=installed)
    assert told.code == 0, told.err
    places = {place["forecaster"]: place for place in told.document["places"]}
    assert {"ours", "last_value", "warmserve", "prophet", "auto_ets", "mstl", "double"} <= set(
        places
    )
    assert "fainted" in places["faint"]["error"]
    assert places["prophet"]["staleness_s"] > 0
    assert places["last_value"]["right_to_act"]  # it is no dearer than itself
    assert sum(place["share"] or 0 for place in places.values()) == pytest.approx(1.0)


def test_help_names_the_commands_and_a_slip_ends_with_code_2() -> None:
    told = warmtide("forecast", "--help")
    for word in ("backtest", "scoreboard", "show"):
        assert word in told.out
    slip = warmtide("forecast", "backtest", "/none.csv")
    assert (slip.code, slip.out) == (2, "")
    assert "there is no such file" in slip.err
    assert "Traceback" not in slip.err
