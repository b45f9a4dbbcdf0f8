"""`warmtide catalog`: exit codes and what stands on which stream."""

import json
from pathlib import Path

from typer.testing import CliRunner

import serve_configs
from gateway.catalog_cli import app
from placement.catalog_file import json_schema

LOCAL = str(Path(str(serve_configs.__file__)).with_name("local.yaml"))
BAD = "models:\n  - id: m\n    engine: emulated\n    weigths: 16 GB\n"


def test_a_good_file_is_shown_as_tables() -> None:
    result = CliRunner().invoke(app, ["check", LOCAL])
    assert result.exit_code == 0
    for word in ("smollm2-135m", "gpt-4o-mini", "H100-80GB", "is good: version"):
        assert word in result.stdout


def test_a_good_file_is_one_json_document() -> None:
    result = CliRunner().invoke(app, ["check", LOCAL, "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["ok"]
    assert "qwen3-32b" in [m["id"] for m in told["models"]]
    assert told["nodes"][0]["gpus"] == 2


def test_a_bad_file_ends_with_two_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD, encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{file}:4: models[0].weigths: unknown key" in result.stderr
    result = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert result.exit_code == 2
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["line"], problem["field"]) == (4, "models[0].weigths")


def test_the_schema_is_printed() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert json.loads(result.stdout) == json_schema()
