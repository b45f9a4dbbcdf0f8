"""Scenario files: those shipped are sound, and one's own are refused with file, key and remedy."""

from pathlib import Path

import pytest

from loadtests.scenarios.files import load_scenario
from loadtests.scenarios.names import shipped
from loadtests.scenarios.setups import Wanted, build, catalog_of
from loadtests.scenarios.shape import ScenarioError, model_ids
from loadtests.scenarios.traced import traced
from placement.catalog import World
from placement.catalog_file import load_catalog
from placement.edges import footprint_bytes
from placement.feasibility import usable_hbm_bytes
from prewarm.traces.records import DAY_US, HOUR_US
from tests.loadtests.scenes import SMALL, scenario

ISSUE = {
    "warmserve16", "many-models", "elastic", "long-tail", "flash-crowd", "level-shift", "new-model",
    "node-loss", "steady", "wrong-forecast",
}  # fmt: skip
NOWHERE = Path("/nowhere")
ROOT = Path(__file__).parents[2]


def test_the_scenarios_of_the_study_are_shipped() -> None:
    assert set(shipped()) == ISSUE


@pytest.mark.parametrize("name", sorted(ISSUE))
@pytest.mark.parametrize("world", list(World))
def test_each_opens_with_its_question_and_can_be_set_up(name: str, world: World) -> None:
    found = load_scenario(name)
    assert found.file.question.strip().endswith("?")
    demand = traced(found.file.demand.source, len(model_ids(found.file)), NOWHERE, None)
    setup = build(name, found.file, demand, Wanted(cell=found.file.cell, world=world, seed=1)).setup
    assert setup.demand.models == tuple(m.id for m in setup.catalog.models)
    assert setup.demand.past_days == found.file.slice.past_days
    assert all(m.mechanism.world is world for m in setup.catalog.models)


def test_the_published_cluster_is_the_one_of_the_shipped_catalog() -> None:
    published = load_catalog(ROOT / "serve_configs" / "warmserve16.yaml")
    ours = catalog_of(load_scenario("warmserve16").file, World.S)
    shape = ("id", "weights_bytes", "parameters", "layers", "kv_bytes_per_token", "gpus")
    more = ("kv_cache_bytes", "max_model_len", "max_num_seqs", "service", "residue_bytes")
    for mine, theirs in zip(ours.models, published.models, strict=True):
        for field in (*shape, *more):
            assert getattr(mine, field) == getattr(theirs, field), (mine.id, field)
    assert ours.nodes == published.nodes


def test_the_forty_models_are_forty_streams_without_a_double() -> None:
    streams = [entry.stream for entry in load_scenario("many-models").file.models]
    assert len(streams) == len(set(streams)) == 40
    assert None not in streams
    assert load_scenario("elastic").file.models == load_scenario("many-models").file.models


def test_the_steady_one_has_the_size_of_the_speed_target() -> None:
    file = load_scenario("steady").file
    full, gpus = file.sizes["full"], file.nodes[0].gpus
    assert full.nodes is not None
    assert full.rps is not None
    assert full.nodes * gpus == 100
    assert full.duration == DAY_US
    assert full.rps * 86_400 == pytest.approx(20e6, rel=0.001)


def test_in_world_w_a_serving_replica_fills_its_gpus() -> None:
    catalog = catalog_of(load_scenario("warmserve16").file, World.W)
    usable = usable_hbm_bytes(catalog.nodes[0].hbm_bytes)
    assert {footprint_bytes(spec) for spec in catalog.models} == {usable}


def told(*swaps: tuple[str, str]) -> str:
    with pytest.raises(ScenarioError) as refused:
        scenario(*swaps)
    return str(refused.value)


def test_an_unknown_key_is_named_with_its_file_and_what_it_may_have_meant() -> None:
    assert told(("duration =", "duratoin =")).splitlines() == [
        "small.toml: slice.duration: missing. Add `duration: 4 h`",
        "small.toml: slice.duratoin: unknown key `duratoin`. Did you mean `duration`?",
    ]
    assert "shapes.s.weihgts: unknown key" in told(("weights", "weihgts"))
    assert "cell.shade: unknown key `shade`. Remove it. Known here: alpha, cv" in told(
        ("alpha = 1.0,", "alpha = 1.0, shade = 3,")
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"16 GB"', "16", "shapes.s.weights: a bare number does not say which unit"),
        ('shape = "s"}]', 'shape = "t"}]', "models[2].shape: no shape 't'. Write one of s"),
        ('id = "c"', 'id = "a"', "models: a named twice"),
        ("rps = 6.0, ", "", "demand.load: give either it or cell.rps"),
        ("alpha = 1.0, ", "", "cell.alpha: goes with demand.shares = 'zipf'"),
        ("past_days = 2", "past_days = 3", "at most 2 days lie before day 3"),
        ("[shapes.s]", "grid = {cv = [1.0]}\nquick = [{rps = 1.0}]\n[shapes.s]", "quick[0]: must"),
    ],
)
def test_what_does_not_fit_together_is_said(old: str, new: str, said: str) -> None:
    assert said in told((old, new))


def test_a_file_of_ones_own_goes_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SMALL)
    assert load_scenario(str(file)).name == "mine"


def test_a_name_that_is_none_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean steady\\? there are elastic, flash-cro"):
        load_scenario("stedy")
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        load_scenario(str(tmp_path / "gone.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("question = ")
    with pytest.raises(ScenarioError, match="is not TOML"):
        load_scenario(str(broken))


def test_a_slice_of_hours_and_days_lies_where_the_file_says() -> None:
    found = load_scenario("many-models")
    demand = traced(found.file.demand.source, 40, NOWHERE, None)
    wanted = Wanted(cell=found.file.cell, world=World.W, seed=1)
    built = build("many-models", found.file, demand, wanted).setup.demand
    origin = demand.counts.start_us
    assert (built.start_us - origin, built.duration_us) == (7 * DAY_US, 24 * HOUR_US)
