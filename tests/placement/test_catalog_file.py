"""A catalog is read whole or not at all, and everything wrong with it is said at once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import serve_configs
from placement.catalog import EngineKind, Task
from placement.catalog_fields import Entry
from placement.catalog_file import CatalogError, Problem, json_schema, load_catalog, parse_catalog
from placement.catalog_problems import dotted
from placement.catalog_shape import SECTIONS
from placement.edges import footprint_bytes

SHIPPED = sorted(Path(str(serve_configs.__file__)).parent.glob("*.yaml"))
GB = 1_000_000_000
DIGEST = "sha256:" + "0123456789abcdef" * 4

FLEET = """
fleet:
  nodes:
    - id: n
      count: 2
      gpus: 2
      gpu: H100-80GB
      host_memory: 256 GB
"""

SMALL = (
    """
models:
  - id: small
    engine: emulated
    weights: 16 GB
"""
    + FLEET
)


def problems(text: str) -> list[Problem]:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, "c.yaml")
    assert caught.value.problems
    assert all(p.what and p.remedy and p.line >= 1 for p in caught.value.problems)
    return caught.value.problems


def only_problem(text: str) -> Problem:
    (problem,) = problems(text)
    return problem


# What a good file means


@pytest.mark.parametrize(
    ("keys", "what", "remedy"),
    [
        ("engine: llamacpp\n  source: x.gguf\n  weights: 1 GB", "llamacpp", "with the engine vllm"),
        ("engine: emulated\n  weights: 1 GB", "missing", "Add its path"),
    ],
)
def test_adapters_want_an_engine_that_loads_them_and_a_place_to_load_from(
    keys: str, what: str, remedy: str
) -> None:
    node = "fleet:\n  nodes:\n  - {id: n, gpus: 1, gpu: H100-80GB, host_memory: 99 GB}\n"
    text = f"models:\n- id: m\n  {keys}\n  adapters: [{{id: tuned}}]\n{node}"
    (problem, *_) = problems(text)
    assert "adapters" in problem.field
    assert what in problem.what
    assert remedy in problem.remedy


def test_adapters_of_an_external_server_have_a_name_alone() -> None:
    text = "models:\n- id: m\n  engine: external\n  endpoints: [http://127.0.0.1:9000]\n"
    (model,) = parse_catalog(text + "  adapters: [{id: tuned}]\n", "c.yaml").models
    assert [adapter.id for adapter in model.adapters] == ["tuned"]


def test_an_external_model_needs_a_name_and_an_address() -> None:
    catalog = parse_catalog(
        "models:\n- id: m\n  engine: external\n  endpoints: [http://127.0.0.1:9000]\n", "c.yaml"
    )
    (model,) = catalog.models
    assert model.engine is EngineKind.EXTERNAL
    assert not model.managed
    assert model.endpoints == ("http://127.0.0.1:9000",)
    assert set(model.tasks) == set(Task)
    assert catalog.nodes == ()


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_be_given_as_clients_know_it(tail: str) -> None:
    text = f"models: [{{id: m, engine: external, endpoints: ['https://h.example:9{tail}']}}]"
    assert parse_catalog(text, "c").models[0].endpoints == ("https://h.example:9",)


def test_what_is_not_said_is_filled_in() -> None:
    catalog = parse_catalog(SMALL, "c.yaml")
    (model,) = catalog.models
    assert model.weights_bytes == 16 * GB
    assert model.parameters == 8 * GB
    assert model.kv_cache_bytes == 20 * GB
    assert model.residue_bytes == 800_000_000
    assert model.tasks == (Task.CHAT, Task.COMPLETIONS)
    assert [node.id for node in catalog.nodes] == ["n0", "n1"]
    assert catalog.nodes[0].hbm_bytes == 80 * GB
    assert catalog.nodes[0].preloaded


def test_a_group_without_count_is_one_node_of_that_name() -> None:
    catalog = parse_catalog(SMALL.replace("      count: 2\n", ""), "c.yaml")
    assert [node.id for node in catalog.nodes] == ["n"]


def test_links_can_be_overridden_one_by_one() -> None:
    text = SMALL.replace("gpus: 2", "gpus: 2\n      links: {h2d_stream: 52 GB/s}")
    links = parse_catalog(text, "c.yaml").nodes[0].links
    assert links.h2d_stream == 52 * GB
    assert links.disk == 5 * GB


def test_tenants_policy_and_slo_arrive_in_the_units_of_the_core() -> None:
    text = f"""
models:
  - id: small
    engine: emulated
    weights: 16 GB
    slo: {{ttft: 1 s, itl: 40 ms}}
    deadline: 2 min
{FLEET}
  time_scale: 20
  seed: 7
tenants:
  - id: team
    keys: [{DIGEST}]
    models: [small]
    max_in_flight: 3
policy:
  idle_park: 90 s
"""
    catalog = parse_catalog(text, "c.yaml")
    assert catalog.models[0].ttft_slo_us == 1_000_000
    assert catalog.models[0].itl_slo_us == 40_000
    assert catalog.models[0].deadline_us == 120_000_000
    assert catalog.policy.idle_park_us == 90_000_000
    assert catalog.tenants[0].key_sha256 == (DIGEST,)
    assert (catalog.time_scale, catalog.seed) == (20.0, 7)


def test_words_that_yaml_once_took_for_something_else_stay_words() -> None:
    text = "models: [{id: no, engine: external, aliases: [on, 1:30], endpoints: ['http://h']}]"
    model = parse_catalog(text, "c").models[0]
    assert (model.id, model.aliases) == ("no", ("on", "1:30"))


def test_anchors_and_merges_spare_repetition() -> None:
    text = """
models:
  - &base {id: a, engine: emulated, weights: 16 GB}
  - {<<: *base, id: b}
"""
    catalog = parse_catalog(text + FLEET, "c.yaml")
    assert [(m.id, m.weights_bytes) for m in catalog.models] == [("a", 16 * GB), ("b", 16 * GB)]


def test_an_empty_section_counts_as_absent() -> None:
    assert parse_catalog(SMALL + "tenants:\n", "c").tenants == ()


def test_the_version_follows_the_content_and_not_the_layout() -> None:
    plain = parse_catalog(SMALL, "a.yaml")
    assert parse_catalog("# a comment\n" + SMALL.replace("16 GB", "16000 MB"), "b").version == (
        plain.version
    )
    assert parse_catalog(SMALL.replace("16 GB", "17 GB"), "a").version != plain.version
    assert len(plain.version) == 12


# What a bad file is told


def test_everything_wrong_is_said_at_once_in_order_of_lines() -> None:
    text = """
models:
  - id: a
    engine: emulated
    weigths: 16 GB
  - id: b
    engine: emulated
    weights: 16
    gpus: 3
    aliases: [a]
fleet:
  nodes:
    - id: n
      gpus: 2
      gpu: H100
      host_memory: 256 GB
speed: 3
"""
    told = problems(text)
    assert [(p.line, p.field) for p in told] == [
        (5, "models[0].weigths"),
        (8, "models[1].weights"),
        (9, "models[1].gpus"),
        (10, "models[1].aliases[0]"),
        (15, "fleet.nodes[0].gpu"),
        (17, "speed"),
    ]
    assert "Did you mean `weights`?" in told[0].remedy
    assert told[1].remedy == "Write 16 GB or 15 GiB"
    assert "H100-80GB" in told[4].remedy
    assert str(told[0]).startswith("c.yaml:5: models[0].weigths: unknown key")


def test_a_model_that_fits_nowhere_is_told_its_footprint_and_the_largest_gpu() -> None:
    problem = only_problem(SMALL.replace("16 GB", "160 GB"))
    assert problem.field == "models[0].weights"
    assert "182.3 GB" in problem.what
    assert "72 GB" in problem.what


def test_more_gpus_than_a_node_has() -> None:
    problem = only_problem(SMALL.replace("weights: 16 GB", "weights: 16 GB\n    gpus: 4"))
    assert problem.field == "models[0].gpus"
    assert "2 or less" in problem.remedy


def test_a_managed_model_needs_a_fleet() -> None:
    problem = only_problem("models: [{id: m, engine: emulated, weights: 1 GB}]")
    assert "fleet" in problem.remedy


def test_replicas_that_must_stay_need_room_together() -> None:
    text = SMALL.replace("weights: 16 GB", "weights: 40 GB\n    min_replicas: {n}")
    assert parse_catalog(text.format(n=4), "c").models[0].min_replicas == 4
    problem = only_problem(text.format(n=5))
    assert problem.field == "models[0].min_replicas"
    assert "only 4 of 5" in problem.what


def test_fewer_at_most_than_at_least() -> None:
    text = SMALL.replace(
        "weights: 16 GB", "weights: 16 GB\n    min_replicas: 3\n    max_replicas: 2"
    )
    assert only_problem(text).field == "models[0].max_replicas"


def test_weights_that_must_lie_in_host_memory_have_to_fit_there() -> None:
    problem = only_problem(SMALL.replace("256 GB", "10 GB"))
    assert problem.field == "fleet.nodes[0].preloaded"
    assert "preloaded: false" in problem.remedy
    parse_catalog(
        SMALL.replace("host_memory: 256 GB", "host_memory: 10 GB\n      preloaded: false"), "c"
    )


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("weights: 1 GB", "models[0].weights"),
        ("gpus: 2", "models[0].gpus"),
        ("min_replicas: 1", "models[0].min_replicas"),
    ],
)
def test_keys_of_engines_we_run_mean_nothing_to_external_ones(line: str, field: str) -> None:
    text = f"models:\n- id: m\n  engine: external\n  endpoints: [http://h:1]\n  {line}\n"
    assert (only_problem(text).field, only_problem(text).line) == (field, 5)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h",
        "http://",
        "h:9000",
        "http://h:99999",
        "http://h:0",
        "http://[::1",
        "http://h/?q=1",
        "http://h h",
        "http://user:hunter2@h",
        17,
    ],
)
def test_an_address_that_cannot_work_is_refused(url: object) -> None:
    text = yaml.safe_dump({"models": [{"id": "m", "engine": "external", "endpoints": [url]}]})
    problem = only_problem(text)
    assert problem.field == "models[0].endpoints[0]"
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    ("url", "words"),
    [("h h", "OpenTelemetry"), ("http://me:hunter2@h", "OTEL_EXPORTER_OTLP_HEADERS")],
)
def test_a_collectors_address_is_refused_in_words_about_collectors(url: str, words: str) -> None:
    problem = only_problem(SMALL + yaml.safe_dump({"telemetry": {"otlp": url}}))
    assert problem.field == "telemetry.otlp"
    assert words in str(problem)
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("place", ["keys: [{s}]", "keys: {s}", "keys: {{{s}: 1}}", "id: [{s}]"])
def test_a_secret_in_clear_is_refused_and_not_repeated(place: str) -> None:
    secret = "sk-hunter2hunter2hunter2"
    text = SMALL + f"tenants:\n  - max_in_flight: 1\n    {place.format(s=secret)}\n"
    for problem in problems(text):
        assert "hunter2" not in str(problem)


def test_a_key_in_clear_is_told_how_to_make_a_digest() -> None:
    problem = only_problem(SMALL + "tenants: [{id: t, keys: [sk-abc]}]\n")
    assert problem.field == "tenants[0].keys[0]"
    assert "warmtide key new" in problem.remedy


def test_a_secret_where_a_variables_name_belongs_is_not_repeated() -> None:
    text = "models: [{id: m, engine: external, endpoints: [http://h], api_key_env: sk-hunter2}]"
    assert "hunter2" not in str(only_problem(text))


def test_a_tenant_may_only_name_what_exists() -> None:
    text = SMALL + f"tenants: [{{id: t, keys: ['{DIGEST}'], models: [smal]}}]\n"
    assert "small" in only_problem(text).remedy


def test_two_tenants_cannot_share_a_key() -> None:
    keys = f"keys: ['{DIGEST}']"
    text = SMALL + f"tenants: [{{id: s, {keys}}}, {{id: t, {keys}}}]\n"
    assert only_problem(text).field == "tenants[1].keys[0]"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("just words", 1, "sections"),
        ("models: []", 1, "empty list"),
        ("models:\n\t- id: m", 2, "YAML"),
        ("models: [\n", 2, "YAML"),
        ("a: 1\n---\nb: 2\n", 2, "YAML"),
        ("models: *nowhere", 1, "YAML"),
        ("models: !!python/object/apply:os.system [echo]", 1, "tag"),
        ("? [a]\n: 1", 1, "key"),
        ("models: 1\nmodels: 2", 2, "given twice"),
        ("models: \x00", 1, "control character"),
    ],
)
def test_files_that_are_no_catalogs(text: str, line: int, said: str) -> None:
    told = [p for p in problems(text) if said in p.what]
    assert told
    assert told[0].line == line


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000,
        "a: " + "{a: " * 5000,
        "- " * 3000,
        "a0: &a0 [x]\n"
        + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "a: &a {b: *a}",
        "x" * 2_000_000,
        "[" + "a," * 200_000 + "]",
        "models: " + "1" * 5000,
        "models:\n" + "  - {}\n" * 5000,
        "models: [{" + ", ".join(f"k{i}: 1" for i in range(20_000)) + "}]",
    ],
    ids=range(12),
)
def test_a_hostile_file_is_refused(text: str) -> None:
    assert len(problems(text)) <= 101


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"models:\n  - id: caf\xe9\n")
    os.mkfifo(tmp_path / "pipe")
    for path, said in [
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "latin.yaml", "UTF-8"),
        (tmp_path / "pipe", "regular"),
        (Path("\0"), "path"),
    ]:
        with pytest.raises(CatalogError, match=said) as caught:
            load_catalog(path)
        assert caught.value.problems[0].file == str(path)


# Laws


def _explained(error: CatalogError) -> None:
    assert error.problems
    assert all(p.what and p.remedy and p.line >= 1 for p in error.problems)


def _places() -> list[tuple[tuple[str, ...], type[Entry]]]:
    return sorted(SECTIONS.items())


FULL: dict[str, Any] = {
    "models": [
        {
            "id": "m",
            "engine": "emulated",
            "weights": "16 GB",
            "adapters": [{"id": "lora", "source": "x"}],
            "service": {"prefill": "35 ms", "decode_step": "15 ms"},
            "faults": {"failed_wake": 0.1},
            "slo": {"ttft": "1 s"},
        }
    ],
    "fleet": {
        "nodes": [
            {
                "id": "n",
                "gpus": 2,
                "gpu": "H100-80GB",
                "host_memory": "256 GB",
                "links": {"disk": "6 GB/s"},
            }
        ]
    },
    "tenants": [{"id": "t", "keys": [DIGEST]}],
    "policy": {"waiting_to_idle": 9},
    "telemetry": {"scrape": "10 s"},
    "forecast": {
        "time_zone": "Europe/Berlin",
        "events": [{"name": "e", "start": "2026-12-01", "duration": "4 h", "uplift": 3.0}],
    },
}


@pytest.mark.parametrize(("place", "entry"), _places(), ids=[".".join(p) for p, _ in _places()])
def test_an_unknown_key_anywhere_is_named_with_its_line(
    place: tuple[str, ...], entry: type[Entry]
) -> None:
    text = yaml.safe_dump(FULL)
    parse_catalog(text, "c")
    data = yaml.safe_load(text)
    spot: Any = data
    path: tuple[str | int, ...] = ()
    for part in place:
        spot, path = spot[part], (*path, part)
        if isinstance(spot, list):
            spot, path = spot[0], (*path, 0)
    spot["zz_surprise"] = 1
    text = yaml.safe_dump(data)
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if "zz_surprise" in row)
    problem = only_problem(text)
    assert problem.field == dotted((*path, "zz_surprise"))
    assert problem.line == line
    assert entry.model_fields


keys = st.sampled_from(sorted({name for e in SECTIONS.values() for name in e.model_fields}))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["emulated", "external", "16 GB", "H100-80GB", "http://h:1", DIGEST, "m"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(st.text())
@example("a: !!set {x}")
@example("<<: [1]")
@example("\ud800")
@example("= : =")
def test_any_text_is_a_catalog_or_a_catalog_error(text: str) -> None:
    try:
        parse_catalog(text, "junk")
    except CatalogError as error:
        _explained(error)


@given(
    st.dictionaries(st.sampled_from(["models", "fleet", "tenants", "policy", "telemetry"]), values)
)
def test_any_data_is_a_catalog_or_a_catalog_error(data: dict[str, Any]) -> None:
    try:
        parse_catalog(yaml.safe_dump(data), "junk")
    except CatalogError as error:
        _explained(error)


@given(st.sampled_from(_places()), keys, values)
def test_any_value_in_a_good_file_is_accepted_or_explained(
    place: tuple[tuple[str, ...], type[Entry]], key: str, value: Any
) -> None:
    data = yaml.safe_load(yaml.safe_dump(FULL))
    spot = data
    for part in place[0]:
        spot = spot[part]
        spot = spot[0] if isinstance(spot, list) else spot
    spot[key] = value
    try:
        parse_catalog(yaml.safe_dump(data), "junk")
    except CatalogError as error:
        _explained(error)


# What ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_catalog_is_good_and_names_its_schema(path: Path) -> None:
    assert load_catalog(path).models
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./catalog.schema.json"


def test_the_shipped_schema_is_current() -> None:
    shipped = SHIPPED[0].with_name("catalog.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json_schema(), (
        "run: warmtide catalog schema > serve_configs/catalog.schema.json"
    )


def test_every_key_is_described_in_the_schema() -> None:
    for entry in SECTIONS.values():
        nested = {s.__name__ for s in SECTIONS.values()}
        for name, info in entry.model_fields.items():
            own = any(n in str(info.annotation) for n in nested)
            assert info.description or own, f"{entry.__name__}.{name}"


def test_the_default_catalog_is_larger_than_its_gpus() -> None:
    catalog = load_catalog(next(p for p in SHIPPED if p.name == "local.yaml"))
    gpus = [m for m in catalog.models if m.on_gpu]
    assert sum(m.gpus * footprint_bytes(m) for m in gpus) > 4 * 72 * GB * 0.8
    assert {m.engine for m in catalog.models} == {EngineKind.EMULATED, EngineKind.LLAMACPP}
    names = catalog.names()
    assert names["gpt-4o-mini"][0].id == names["llama-3.1-8b-sql"][0].id == "llama-3.1-8b"


def test_forty_models_ship_and_the_published_set_up() -> None:
    many, warmserve = (
        load_catalog(next(p for p in SHIPPED if p.name == name))
        for name in ("many.yaml", "warmserve16.yaml")
    )
    assert len(many.models) == 40
    assert sum(n.gpus for n in many.nodes) == 32
    assert [m.weights_bytes for m in warmserve.models] == [
        13_476_831_232,
        13_476_831_232,
        26_032_558_080,
        137_961_209_856,
    ]
    for model in warmserve.models:
        full_batch = model.max_num_seqs * model.max_model_len * model.kv_bytes_per_token
        assert model.gpus * model.kv_cache_bytes == full_batch


def test_the_reference_names_every_key() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "catalog.md").read_text(encoding="utf-8")
    for entry in SECTIONS.values():
        for name in entry.model_fields:
            assert f"`{name}`" in page, f"docs/catalog.md says nothing of {name}"


def test_the_examples_of_the_reference_are_good() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "catalog.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) == 2
    for example_text in examples:
        assert parse_catalog(example_text, "docs/catalog.md").models


def test_editors_are_not_told_defaults_in_the_cores_units() -> None:
    entries = json_schema()["$defs"]
    assert "default" not in entries["ModelEntry"]["properties"]["deadline"]
    assert entries["ModelEntry"]["properties"]["layers"]["default"] == 32
    assert entries["ModelEntry"]["additionalProperties"] is False
