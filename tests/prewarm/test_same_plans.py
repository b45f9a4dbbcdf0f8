"""Whoever makes the planner faster plans what was planned before, action for action."""

import json
from pathlib import Path

import pytest

from tests.prewarm.plan_stories import SEEDS, Story

RECORDED = json.loads(Path(__file__).with_name("plans_recorded.json").read_text("utf-8"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_story_is_told_as_it_was_recorded(seed: int) -> None:
    commit = RECORDED["recorded_at_commit"]
    assert Story(seed).run() == RECORDED["digests"][seed], f"plans differ from those at {commit}"


def test_the_stories_hold_every_kind_of_action() -> None:
    """Else the digests would say little."""
    verbs: set[str] = set()
    for seed in SEEDS[:48]:
        story = Story(seed)
        story.run()
        verbs |= story.verbs
    assert verbs == {"Drain", "Evict", "Park", "Promote", "Restore", "Shed", "Start", "Warm"}
