"""Users of a load test: theirs are the keys, the texts and the moments at which they leave."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.errors import AskedError
from loadtests.prompts import Prompts
from loadtests.visits import (
    LEAVE_AFTER_EVENTS_MAX,
    LENGTH_CAP,
    NOBODY,
    STAY,
    Guest,
    Habits,
    Kind,
    Tenant,
    Visit,
    tenants_in,
    weights_in,
)

PROMPTS = Prompts(0)
MODELS = {"a": 3.0, "b": 1.0}


def guest(name: str = "1", seed: int = 0, tenants: tuple[Tenant, ...] = (NOBODY,)) -> Guest:
    habits = Habits(seed=seed, think_s=1.0, prompt_tokens=100, output_tokens=50, leave_within_s=2.0)
    return Guest(name, habits, PROMPTS, tenants)


def story(one: Guest, kind: Kind = Kind.STREAM, *, leaves: bool = False) -> list[Visit]:
    return [one.visit(kind, MODELS, leaves=leaves) for _ in range(40)]


# --- what is written down


def test_tenants_are_lines_of_name_weight_and_key() -> None:
    text = "# ours\nresearch 3 wt-abc   # the big one\n\nbatch 0.5 wt-def\n"
    assert tenants_in(text) == (Tenant("research", 3.0, "wt-abc"), Tenant("batch", 0.5, "wt-def"))
    assert tenants_in(" \n# nobody\n") == (NOBODY,)


@pytest.mark.parametrize(
    "line", ["research wt-secret", "a 1 wt-secret x", "a wt-secret 1", "a 0 k"]
)
def test_a_bad_line_is_told_by_its_number_and_its_key_is_not_shown(line: str) -> None:
    with pytest.raises(AskedError, match="tenants, line 2: write `NAME WEIGHT KEY`") as caught:
        tenants_in(f"good 1 wt-key\n{line}")
    assert "secret" not in str(caught.value)


def test_models_are_names_with_weights() -> None:
    assert weights_in("a, b=3 ,org/c:q4=0.5,") == {"a": 1.0, "b": 3.0, "org/c:q4": 0.5}
    assert weights_in("") == {}


@pytest.mark.parametrize("text", ["a=", "a=x", "a=0", "a=-1", "a=nan", "a=inf"])
def test_a_weight_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AskedError, match="NAME=WEIGHT"):
        weights_in(text)


# --- what they do


@given(seed=st.integers(0, 1000), name=st.text(max_size=10))
def test_a_user_does_the_same_in_every_run_whoever_else_there_is(seed: int, name: str) -> None:
    others = story(guest(f"{name}'s neighbour", seed))
    assert story(guest(name, seed)) == story(guest(name, seed))
    assert story(guest(name, seed)) != others
    assert story(guest(name, seed)) != story(guest(name, seed + 1))


@given(seed=st.integers(0, 1000))
def test_what_is_asked_fits_the_route_and_the_bounds(seed: int) -> None:
    for kind in Kind:
        for visit in story(guest(seed=seed), kind):
            body = json.loads(visit.body)
            assert body["model"] == visit.model in MODELS
            assert 1 <= body["max_tokens"] <= 50 * LENGTH_CAP
            assert 1 <= len(body["messages"][0]["content"]) <= 4 * 100 * LENGTH_CAP
            assert body.get("stream", False) is (kind is Kind.STREAM)
            assert visit.leave == STAY


def test_no_two_prompts_are_the_same() -> None:
    bodies = [visit.body for name in "123" for visit in story(guest(name))]
    assert len(set(bodies)) == len(bodies)


def test_who_leaves_does_so_in_mid_stream_or_after_a_while() -> None:
    visits = [visit for name in "123" for visit in story(guest(name), leaves=True)]
    events = [v.leave.after_events for v in visits if v.leave.after_events is not None]
    spans = [v.leave.after_s for v in visits if v.leave.after_s is not None]
    assert len(events) + len(spans) == len(visits)
    assert min(len(events), len(spans)) > len(visits) / 4
    assert set(events) == set(range(1, LEAVE_AFTER_EVENTS_MAX + 1))
    assert 0 <= min(spans) < 0.5
    assert 1.5 < max(spans) <= 2.0


def test_models_and_tenants_are_drawn_by_weight() -> None:
    asked = [visit.model for name in range(10) for visit in story(guest(str(name)))]
    assert asked.count("a") / len(asked) == pytest.approx(0.75, abs=0.1)
    tenants = (Tenant("big", 9, "k"), Tenant("small", 1, "l"))
    theirs = [guest(str(number), tenants=tenants).tenant.name for number in range(200)]
    assert theirs.count("big") / len(theirs) == pytest.approx(0.9, abs=0.1)
