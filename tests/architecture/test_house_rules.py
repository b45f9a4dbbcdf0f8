"""The house rules as tests: what is pure stays pure, files stay readable, headers are there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("placement", "prewarm", "gateway", "loadtests")

# A module is pure unless listed here: these may await, log, read a clock, touch files and sockets.
EDGES = {
    "placement.clock",
    "placement.catalog_file",
    "placement.fleet",
    "placement.private_file",
    "placement.tokens",
    "placement.fleets.leftovers",
    "placement.fleets.local",
    "placement.fleets.local_node",
    "placement.agent.adoption",
    "placement.agent.app",
    "placement.agent.deeds",
    "placement.agent.nvml",
    "placement.engines.base",
    "placement.engines.emulated_driver",
    "placement.engines.llamacpp_driver",
    "placement.engines.processes",
    "placement.engines.ready_file",
    "placement.engines.vllm_calls",
    "placement.engines.vllm_driver",
    "placement.engines.vllm_find",
    "placement.engines.vllm_guard.warmtide_guard",
    "placement.engines.vllm_ports",
    "placement.engines.asgi",
    "placement.engines.emulated_controls",
    "placement.engines.emulated_http",
    "placement.engines.emulated_server",
    "placement.engines.llamacpp",
    "placement.engines.llamacpp_tokens",
    "placement.engines.translated",
    "prewarm.backtest",
    "prewarm.event_file",
    "prewarm.forecasters.background",
    "prewarm.forecasters.fit_process",
    "prewarm.forecasters.guests",
    "prewarm.forecasters.libraries",
    "prewarm.forecasters.plugins",
    "prewarm.history",
    "prewarm.history_import",
    "prewarm.history_panels",
    "prewarm.history_sql",
    "prewarm.loop",
    "prewarm.traces.files",
    "prewarm.traces.lenient",
    "gateway.admin",
    "gateway.admin_client",
    "gateway.app",
    "gateway.asgi",
    "gateway.catalog_cli",
    "gateway.catalog_tables",
    "gateway.completing",
    "gateway.daemon",
    "gateway.desk",
    "gateway.doctor.checks",
    "gateway.doctor.cli",
    "gateway.doctor.look_machine",
    "gateway.doctor.look_services",
    "gateway.environment",
    "gateway.event_input",
    "gateway.events_cli",
    "gateway.gate",
    "gateway.history_cli",
    "gateway.import_cli",
    "gateway.prometheus",
    "gateway.hot_protocol",
    "gateway.journey",
    "gateway.limits",
    "gateway.main",
    "gateway.metrics",
    "gateway.plugins",
    "gateway.progress",
    "gateway.relay",
    "gateway.recorder",
    "gateway.reply",
    "gateway.scraper",
    "gateway.serving",
    "gateway.state_dir",
    "gateway.status_document",
    "gateway.status_cli",
    "gateway.tracing",
    "gateway.upstream",
    "gateway.words",
    "loadtests.baselines.plugins",
    "loadtests.bench",
    "loadtests.bench_rounds",
    "loadtests.bench_subjects",
    "loadtests.checks",
    "loadtests.cli",
    "loadtests.client",
    "loadtests.fleet_process",
    "loadtests.foresights.cost",
    "loadtests.forecast_report",
    "loadtests.forecasts.cli",
    "loadtests.forecasts.costing",
    "loadtests.forecasts.data",
    "loadtests.forecasts.files",
    "loadtests.forecasts.running",
    "loadtests.forecasts.showing",
    "loadtests.forecasts.tables",
    "loadtests.locust_client",
    "loadtests.locustfile",
    "loadtests.machine",
    "loadtests.mock_engine",
    "loadtests.plan_bench",
    "loadtests.plans.asking",
    "loadtests.plans.cli",
    "loadtests.plans.showing",
    "loadtests.plan_report",
    "loadtests.pressure",
    "loadtests.private_file",
    "loadtests.replay",
    "loadtests.session",
    "loadtests.sim_report",
    "loadtests.study.asked",
    "loadtests.study.cache",
    "loadtests.study.cli",
    "loadtests.study.comparison",
    "loadtests.study.facts",
    "loadtests.study.pool",
    "loadtests.study.reporting",
    "loadtests.study.running",
    "loadtests.study.studying",
    "loadtests.study.tables",
    "loadtests.scenarios.files",
    "loadtests.scenarios.names",
    "loadtests.scenarios.traced",
    "loadtests.screen",
    "loadtests.target",
    "loadtests.telling",
    "loadtests.trace_places",
    "loadtests.twin",
    "loadtests.workload",
}

# The world: a pure module imports none of it.
WORLD = {
    "asyncio", "time", "os", "logging", "socket", "subprocess", "signal", "threading", "tempfile",
    "shutil", "sqlite3", "httpx", "uvicorn", "opentelemetry", "uvloop", "starlette", "psutil",
    "typer", "rich", "ray", "pynvml",
}  # fmt: skip

# Seeded draws: these take a `random.Random` that is handed in, and never the module's own.
SEEDED = {
    "placement.engines.emulated",
    "placement.engines.emulated_replica",
    "placement.engines.emulated_text",
    "placement.engines.emulated_requests",
    "loadtests.arrivals",
    "loadtests.draws",
    "loadtests.generator",
    "loadtests.plan_cases",
    "loadtests.prompts",
    "loadtests.visits",
}

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
# Exceptions, with their length: they may shrink, never grow.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
PURE = sorted(set(MODULES) - EDGES)


def imported(tree: ast.Module) -> set[str]:
    """Modules imported anywhere but under TYPE_CHECKING."""
    names: set[str] = set()
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_list_of_edges_names_only_modules_that_exist() -> None:
    assert set(MODULES) >= EDGES, f"gone: {sorted(EDGES - set(MODULES))}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_does_not_touch_the_world(name: str) -> None:
    world = {module.split(".")[0] for module in imported(TREES[name])} & WORLD
    assert not world, f"{name} decides, so it may not import {sorted(world)}"
    if name not in SEEDED:
        assert "random" not in imported(TREES[name]), f"{name} may not draw"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_no_edge(name: str) -> None:
    edges = imported(TREES[name]) & EDGES
    assert not edges, f"{name} decides, so it may not import the edges {sorted(edges)}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_awaits_nothing(name: str) -> None:
    awaiting = [n.name for n in ast.walk(TREES[name]) if isinstance(n, ast.AsyncFunctionDef)]
    assert not awaiting, f"{name} may not have {awaiting}"


@pytest.mark.parametrize("name", sorted(SEEDED & set(MODULES)))
def test_a_seeded_module_never_draws_from_the_global_stream(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random":
            assert node.attr == "Random", f"{name} uses random.{node.attr}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_opens_with_its_header_and_stays_readable(name: str) -> None:
    assert ast.get_docstring(TREES[name]), f"{name} has no header"
    lines = MODULES[name].read_text("utf-8").count("\n")
    assert lines <= LONG_FILES.get(name, FILE_LINES_MAX), f"{name} has {lines} lines"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_function_outgrows_a_page(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            limit = LONG_FUNCTIONS.get(f"{name}.{node.name}", FUNCTION_LINES_MAX)
            assert lines <= limit, f"{name}.{node.name} has {lines} lines"
