"""Events are announced beside a running gateway, by its own catalog."""

from pathlib import Path

import pytest

from tests.integration.running import catalog_text, emulated, running, warmtide

pytestmark = pytest.mark.integration

LATER = ("--start", "2046-07-01T09:00", "--duration", "4h", "--uplift", "3")


def test_models_and_time_zone_are_those_of_the_running_gateway(tmp_path: Path) -> None:
    text = catalog_text([emulated("busy")], forecast={"time_zone": "Asia/Tokyo"})
    with running(tmp_path, text) as gateway:
        here = ("--state-dir", gateway.state_dir, "--json")
        refused = warmtide("events", "add", "sale", "--models", "bussy", *LATER, *here)
        assert refused.code == 2
        assert "Did you mean busy?" in refused.document["error"]
        added = warmtide("events", "add", "sale", "--models", "busy", *LATER, *here).document
        assert added["models_checked"]
        assert added["event"]["start"] == "2046-07-01T00:00:00+00:00"
    listed = warmtide("events", "list", "--state-dir", tmp_path / "state", "--json").document
    assert [event["name"] for event in listed["events"]] == ["sale"], "it outlives the gateway"
