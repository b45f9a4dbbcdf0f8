"""The written report: losses counted, bounds held, published orderings judged, speed told."""

from collections.abc import Sequence

from loadtests.study.cells import Cell
from loadtests.study.parts import Facts
from loadtests.study.report import Findings, Speed, closest_places, markdown
from loadtests.study.sides import Side, Twin
from loadtests.validation.figures import T6, Figure
from tests.loadtests.runs import cell

FACTS = Facts(
    cpu="a processor",
    cores=2,
    python="3.11",
    version="0.1.0",
    demand="servegen m-large",
    lengths="azure 2023 conv",
    quick=False,
)


def written(facts: Facts = FACTS, **found: object) -> str:
    nothing: Sequence[Cell] = ()
    whole: dict[str, object] = {
        "grid": nothing,
        "ablations": nothing,
        "close": nothing,
        "others": {},
        "questions": {},
        "figures": (),
        "twins": (),
        "speeds": (),
        "failed": (),
    }
    return markdown(Findings(**(whole | found)), facts)  # type: ignore[arg-type]


def rows(text: str, start: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[value.strip() for value in line.strip("|").split("|")] for line in lines]


def duel(gain: float, **place: object) -> list[Cell]:
    return [cell("reactive", 1000.0, **place), cell("warmserve", 1000.0 / gain, **place)]


def test_it_opens_with_what_it_is_made_of() -> None:
    text = written()
    assert "**Everything here is simulated**" in text
    assert "servegen m-large" in text
    assert "2 cores (a processor), Python 3.11" in text
    assert "Do not quote it" not in text
    quick = Facts(**{name: getattr(FACTS, name) for name in Facts.__slots__} | {"quick": True})
    assert "Do not quote it" in written(quick)


def test_the_range_of_gains_is_shown_and_the_cells_that_are_lost() -> None:
    grid = [*duel(40.0, rps=5.0), *duel(3.0, rps=10.0), *duel(0.5, rps=25.0)]
    text = written(grid=grid)
    assert rows(text, "`warmserve`")[0][2:6] == ["0.5", "3", "40", "1"]
    assert "loses 1 of 3 cells" in text
    # rps, alpha, cv, hour, seed, its P99, reactive's, gain
    assert rows(text, "25") == [["25", "–", "–", "–", "0", "2.000", "1.000", "0.5"]]
    *along, heads = rows(text, "rps")
    assert [row[1:] for row in along] == [
        ["5", "40 / 40 / 40", "1", "0"],
        ["10", "3 / 3 / 3", "1", "0"],
        ["25", "0.5 / 0.5 / 0.5", "1", "1"],
    ]
    assert heads[5:] == ["its P99 s", "reactive's", "gain"]


def test_every_table_has_as_many_columns_in_each_row_as_in_its_head() -> None:
    cells = [*duel(0.5), cell("oracle", 10.0)]
    text = written(
        grid=cells,
        ablations=cells,
        close=duel(2.0),
        others={"steady": cells},
        questions={"steady": "why?"},
    )
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    # Of the grid three, then the close cells, all policies, the bound, a scenario, published
    # figures, speed; the published orderings need variants that did not run.
    assert len(tables) == 9
    for head, rule, *body in tables:
        assert set(rule) <= set("|- ")
        assert {line.count("|") for line in (rule, *body)} == {head.count("|")}


def test_cells_near_a_draw_are_found_by_their_median_over_seeds() -> None:
    cells = [
        *duel(20.0, rps=5.0),
        *duel(0.9, rps=10.0, seed=0),
        *duel(1.3, rps=10.0, seed=1),
        *duel(0.2, rps=15.0),
        *duel(2.0, rps=20.0),
    ]
    # Medians 20, 1.1, 0.2 (five to one) and 2: nearest to one are 10 and 20 requests a second.
    assert [place[3] for place in closest_places(cells, 2)] == [10.0, 20.0]


def test_a_draw_is_settled_by_how_many_seeds_are_won() -> None:
    close = [one for seed, gain in enumerate((2.0, 4.0, 0.8)) for one in duel(gain, seed=seed)]
    assert rows(written(close=close), "5") == [["5", "–", "–", "–", "3", "2", "0.8", "2", "4"]]


def test_whoever_undercuts_the_bound_is_counted() -> None:
    grid = [
        cell("oracle", 50.0),
        cell("reactive", 100.0),
        cell("oracle", 50.0, seed=1),
        cell("reactive", 10.0, seed=1),
    ]
    # 100 and 10 over 50: twice and a fifth, 1.1 in the middle.
    assert rows(written(grid=grid), "warmserve16") == [
        ["warmserve16", "`reactive`", "2", "1", "1.1"]
    ]


def test_a_cell_that_two_parts_ran_is_compared_once() -> None:
    twice = [cell("oracle", 50.0), cell("reactive", 100.0)]
    found = rows(written(grid=twice, ablations=twice), "warmserve16")
    assert found == [["warmserve16", "`reactive`", "1", "0", "2"]]


def test_published_orderings_stand_beside_ours() -> None:
    shares = zip(T6.best_first, (0.9, 0.8, 0.85, 0.2), strict=True)
    cells = [cell(policy, 10.0, share_under_100ms=share) for policy, share in shares]
    [row] = rows(written(ablations=cells), T6.name)
    assert row[2] == "no"


def test_other_scenarios_have_their_question_and_how_they_were_thinned() -> None:
    level = {"factor": 0.104, "binding": "mean", "mean_load": 0.35, "peak_load": 0.75}
    text = written(
        others={"many-models": [cell("reactive", 10.0, level=level)]},
        questions={"many-models": "who\nwaits?"},
    )
    assert "who waits?" in text
    assert "thinned by 0.104, bound by the mean: mean load 0.35, peak 0.75" in text


def test_published_figures_that_prove_nothing_are_not_counted() -> None:
    common = {"unit": "s", "published": 10.0, "source": "somewhere", "grade": "B"}
    figures = [
        Figure(name="met", ours=11.0, **common),  # type: ignore[arg-type]
        Figure(name="missed", ours=20.0, miss="for a reason", **common),  # type: ignore[arg-type]
        Figure(name="fitted", ours=10.0, fitted="A_CONSTANT", **common),  # type: ignore[arg-type]
    ]
    text = " ".join(written(figures=figures).split())
    assert "1 are reproduced within 20 %, 1 are missed and explained; 1 do not count" in text


def test_speed_is_told_with_what_was_run() -> None:
    speed = Speed(
        policy="reactive",
        world="W",
        gpus=16,
        simulated_h=1.0,
        requests=72_000,
        wall_s=6.0,
        rss_mb=210.4,
    )
    [row] = rows(written(speeds=[speed]), "`reactive`")
    assert row[-4:] == ["72000", "6.0", "12000", "210"]


def test_what_was_not_run_is_said() -> None:
    assert "## Not run\n\n- oracle: no memory" in written(failed=["oracle: no memory"])


def test_a_live_fleet_stands_beside_the_simulator_and_the_worst_figure_is_named() -> None:
    twin = Twin(
        100, 4.0, live=Side(100, 9, 80.0, 900.0, 2200.0), simulated=Side(100, 9, 70, 900, 2000)
    )
    text = written(twins=(twin,))
    assert rows(text, "ttft_p50_ms") == [["ttft_p50_ms", "80", "70", f"{80 / 70:.3f}"]]
    assert f"Farthest apart: `ttft_p50_ms`, {80 / 70:.3f}." in text
    assert "beside a live fleet" not in written()


def test_a_gain_made_of_refusals_is_told_apart() -> None:
    refusing = [cell("reactive", 999_000.0, rps=25.0, served=9), cell("warmserve", 100.0, rps=25.0)]
    text = written(grid=[*duel(30.0, rps=5.0), *duel(2.0, rps=10.0), *refusing])
    assert "both served everybody (2 of 3 pairs)" in text
    assert "30 at best" in text
    assert "1 pairs have 20 or more" in text
