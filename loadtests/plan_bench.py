"""How long one rung plan takes, measured on clusters of growing size. An edge.

`make plan-bench`, or `python -m loadtests.plan_bench --report FILE`: Markdown, and a plot beside
it. Progress on stderr. `--quick` measures the small sizes, once.
"""

import argparse
import gc
import platform
import sys
import time
from pathlib import Path

from loadtests.drawing import svg
from loadtests.machine import cpu_name
from loadtests.plan_cases import fresh_ids, plan_case
from loadtests.plan_speed import Machine, Round, figure, markdown
from placement.catalog import World
from placement.planning.rungs import plan_rungs

SIZES = (125, 250, 500, 1_000, 2_000, 5_000, 10_000)
QUICK_SIZES = (125, 250)
SEEDS = 5


def main() -> int:
    asked = _asked()
    sizes, seeds = (QUICK_SIZES, 1) if asked.quick else (SIZES, SEEDS)
    plan_rungs(plan_case(QUICK_SIZES[0], World.S), fresh_ids())  # else the first one also imports
    rounds = []
    for world in World:
        for gpus in sizes:
            for seed in range(seeds):
                rounds.append(measured(gpus, world, seed))
                sys.stderr.write(f"world {world}, {gpus} GPUs: {rounds[-1].cpu_ms:.1f} ms\n")
    report: Path = asked.report
    plot = report.with_suffix(".svg")
    machine = Machine(cpu_name(), platform.python_version())
    report.write_text(markdown(rounds, machine, plot.name), "utf-8")
    plot.write_text(svg(figure(rounds)), "utf-8")
    return 0


def measured(gpus: int, world: World, seed: int) -> Round:
    """One plan of a cluster that nothing was reckoned of before."""
    facts = plan_case(gpus, world, seed)
    gc.collect()
    began_s = time.process_time()
    decision = plan_rungs(facts, fresh_ids())
    cpu_s = time.process_time() - began_s
    return Round(
        world=world.value,
        gpus=gpus,
        models=len(facts.models),
        replicas=sum(len(node.replicas) for node in facts.snapshot.nodes),
        actions=len(decision.plan.actions),
        cpu_ms=1000 * cpu_s,
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.plan_bench", description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes, once")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
