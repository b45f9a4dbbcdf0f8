"""`simulate`, `compare` and `scenarios` as a user meets them; cells that are kept and found."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from loadtests.scenarios.names import shipped
from loadtests.study import cache
from loadtests.study.cli import _policies, _scenarios, compare, scenarios, simulate
from tests.loadtests.absent import without_matplotlib
from tests.loadtests.scenes import SMALL

TRACE = "t_s,x,y,z\n" + "".join(f"{600 * i},300,200,100\n" for i in range(3 * 144))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A scenario of one's own: two minutes, three models, two rates."""
    text = SMALL.replace('duration = "1 h"', 'duration = "2 min"').replace(', hour = "busiest"', "")
    (tmp_path / "mine.toml").write_text(
        text.replace("[shapes.s]", "grid = {rps = [3.0, 6.0]}\n[shapes.s]")
    )
    (tmp_path / "counts.csv").write_text(TRACE)
    return tmp_path


def warmtide(here: Path, command: str, *arguments: str) -> Result:
    app = typer.Typer()
    for call in (simulate, compare, scenarios):
        app.command()(call)
    more = [] if command == "scenarios" else ["--cache", str(here / "cells"), "--traces", str(here)]
    return CliRunner().invoke(app, [command, *arguments, *more])


def document(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kept(here: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (here / "cells").rglob("*.json")}


def test_one_run_is_one_document_with_evidence_and_world(here: Path) -> None:
    found = document(warmtide(here, "simulate", str(here / "mine.toml"), "--world", "W", "--json"))
    assert (found["scenario"], found["evidence"]) == ("mine", "simulated")
    assert found["demand"] == "generated"  # no trace lies here
    [cell] = found["cells"]
    assert (cell["policy"], cell["world"], cell["seed"], cell["rps"]) == ("reactive", "W", 0, 6.0)
    assert cell["requests"] == cell["served"] + cell["refused"] + cell["cut"] > 600


def test_people_see_evidence_and_world_above_the_table(here: Path) -> None:
    done = warmtide(here, "simulate", str(here / "mine.toml"), "--seed", "3")
    assert done.exit_code == 0
    assert "mine · simulated, world S · reactive, seed 3" in done.stdout
    both = warmtide(here, "compare", str(here / "mine.toml"), "--policies", "reactive")
    assert "simulated, world S" in both.stdout
    assert "simulated, world W" in both.stdout


def test_a_comparison_runs_every_policy_on_every_cell_with_the_same_seeds(here: Path) -> None:
    arguments = ("--policies", "reactive,oracle", "--worlds", "W", "--seeds", "2", "--json")
    found = document(warmtide(here, "compare", str(here / "mine.toml"), *arguments))
    ran = {(cell["policy"], cell["rps"], cell["seed"]) for cell in found["cells"]}
    assert ran == {(p, r, s) for p in ("reactive", "oracle") for r in (3.0, 6.0) for s in (0, 1)}
    against = found["summary"]["W"]["policies"]["reactive"]["oracle"]
    assert (against["compared"], against["violations"]) == (4, 0)


def test_what_was_run_is_found_again_and_only_what_is_new_runs(here: Path) -> None:
    file = str(here / "mine.toml")
    first = document(warmtide(here, "compare", file, "--policies", "reactive", "--json"))
    before = kept(here)
    assert len(before) == 4
    again = document(warmtide(here, "compare", file, "--policies", "reactive,oracle", "--json"))
    assert {name: kept(here)[name] for name in before} == before
    assert len(kept(here)) == 8
    same = [cell for cell in again["cells"] if cell["policy"] == "reactive"]
    assert same == first["cells"]


def test_a_change_of_code_scenario_or_trace_makes_a_cell_a_new_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = here / "mine.toml"
    warmtide(here, "simulate", str(file))
    assert len(kept(here)) == 1
    file.write_text(file.read_text().replace("16 GB", "18 GB"))
    warmtide(here, "simulate", str(file))
    assert len(kept(here)) == 2
    warmtide(here, "simulate", str(file), "--trace", str(here / "counts.csv"))
    assert len(kept(here)) == 3
    file.write_text(file.read_text().replace("does a test see", "does a reader see"))
    warmtide(here, "simulate", str(file))
    assert len(kept(here)) == 3  # the question alone changes nothing
    monkeypatch.setattr(cache, "code_digest", lambda: "other code")
    warmtide(here, "simulate", str(file))
    assert len(kept(here)) == 4


def test_half_a_cell_on_the_disk_is_run_again(here: Path) -> None:
    file = str(here / "mine.toml")
    first = document(warmtide(here, "simulate", file, "--json"))
    [cell] = (here / "cells").rglob("*.json")
    cell.write_bytes(cell.read_bytes()[:100])
    assert document(warmtide(here, "simulate", file, "--json")) == first


def test_a_trace_replaces_the_demand_and_is_named(here: Path) -> None:
    trace = ("--trace", str(here / "counts.csv"))
    found = document(warmtide(here, "simulate", str(here / "mine.toml"), *trace, "--json"))
    assert (found["demand"], found["cells"][0]["demand"]) == ("counts.csv", "counts.csv")


def test_files_are_left_where_they_were_asked_for(here: Path) -> None:
    out = here / "out"
    arguments = ("--policies", "reactive,oracle", "--worlds", "W", "--rps", "3", "--out", str(out))
    done = warmtide(here, "compare", str(here / "mine.toml"), *arguments, "--json")
    assert json.loads((out / "compare.json").read_text()) == document(done)
    rows = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    assert [(row["policy"], row["rps"]) for row in rows] == [("reactive", "3.0"), ("oracle", "3.0")]
    assert float(rows[0]["ttft_ms_p99"]) == document(done)["cells"][0]["ttft_ms"]["p99"]
    assert "simulated, world W" in (out / "report.html").read_text()


def test_without_the_plot_library_the_extra_is_named_before_anything_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_matplotlib(monkeypatch)
    done = warmtide(here, "simulate", str(here / "mine.toml"), "--html", str(here / "r.html"))
    assert done.exit_code == 2
    assert "install the extra `reports`" in done.stderr
    assert not (here / "cells").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "warmserv16"), "did you mean warmserve16? there are elastic, flash-crowd"),
        (
            ("compare", "steady", "--policies", "reactve"),
            "did you mean reactive? there are reactive",
        ),
        (("compare", "steady", "--worlds", "X"), "no world 'X': there are S (stock) and W"),
        (("simulate", "steady", "--rps", "many"), "--rps 'many': write numbers, as 5,10"),
        (("simulate", "steady", "--rps", "5,10"), "give one value for each of --rps"),
        (("simulate", "steady", "--hour", "noon"), "--hour 'noon': write busiest or quietest"),
        (("simulate", "many-models", "--cv", "2"), "--cv: this scenario does not say its cv"),
        (("simulate", "steady", "--size", "vast"), "--size vast: the scenario has full"),
        (("simulate", "steady", "--duration", "long"), "--duration: 'long' is no time span"),
        (("simulate", "steady", "--trace", "/none.csv"), "/none.csv: there is no such file"),
    ],
)
def test_what_cannot_be_had_is_answered_with_what_can(
    here: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = warmtide(here, *arguments, "--json")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert said in json.loads(done.stdout)["error"]


def test_the_scenarios_are_listed_with_their_questions(here: Path) -> None:
    found = json.loads(warmtide(here, "scenarios", "--json").stdout)
    assert [one["scenario"] for one in found] == shipped()
    assert all(one["question"].endswith("?") for one in found)
    assert "flash-crowd" in warmtide(here, "scenarios").stdout


def test_names_are_completed() -> None:
    assert _scenarios("st") == ["steady"]
    assert _policies("reactive,orac") == ["reactive,oracle"]
    assert "reactive,reactive" not in _policies("reactive,")
