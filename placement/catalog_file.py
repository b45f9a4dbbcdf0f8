"""Reads the catalog: one YAML file in, frozen records out, or every problem at once. An edge.

In: a path, or text. Out: a validated `Catalog` whose version is the digest of its content, or
`CatalogError`. Never: writes, follows anything the file names, shows a value that may be a secret.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from placement import catalog_check as check
from placement import catalog_convert as convert
from placement.catalog import Catalog, ModelSpec
from placement.catalog_explain import explain
from placement.catalog_fields import Entry
from placement.catalog_problems import BrokenError, CatalogError, Finding, Problem, dotted
from placement.catalog_problems import Path as Place
from placement.catalog_shape import (
    CatalogFile,
    FleetEntry,
    ForecastEntry,
    ModelEntry,
    PolicyEntry,
    TelemetryEntry,
    TenantEntry,
)
from placement.catalog_yaml import CHARS_MAX, Data, Document, read_yaml

__all__ = ["CatalogError", "Problem", "json_schema", "load_catalog", "parse_catalog"]

PROBLEMS_MAX = 100

E = TypeVar("E", bound=Entry)


def load_catalog(path: Path) -> Catalog:
    """The catalog in a file. Raises `CatalogError`."""
    return parse_catalog(_text_of(path), str(path))


def parse_catalog(text: str, file_name: str) -> Catalog:
    """The catalog in a text; `file_name` is only for messages. Raises `CatalogError`."""
    try:
        document = read_yaml(text)
    except BrokenError as broken:
        raise CatalogError(_problems([broken.finding], Document(), file_name)) from None
    shape, findings = _shape_of(document.data)
    findings = [*document.findings, *findings, *_cross_checks(shape)]
    if findings:
        raise CatalogError(_problems(findings, document, file_name))
    return _catalog(shape)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a catalog file, for editors."""
    schema = _without_core_units(CatalogFile.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Written by `warmtide catalog schema`.",
        **schema,
        "title": "Warmtide catalog",
    }


def _without_core_units(schema: Any) -> Any:
    """Defaults are in the core's units, which a file may not write: descriptions name them."""
    if isinstance(schema, list):
        return [_without_core_units(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    human = schema.get("type") in ("integer", "number", "boolean") or "enum" in schema
    return {
        key: _without_core_units(value)
        for key, value in schema.items()
        if key != "default" or human or (isinstance(value, dict) and "type" in value)
    }


@dataclass(slots=True)
class _Shape:
    """The entries that can be read, by their place; `broken` names the sections with findings.

    An entry with findings is read without the keys they are about, and is not `whole`.
    """

    models: dict[int, ModelEntry]
    whole: set[int]
    tenants: dict[int, TenantEntry]
    fleet: FleetEntry | None
    policy: PolicyEntry | None
    telemetry: TelemetryEntry
    forecast: ForecastEntry
    broken: set[str]


def _shape_of(data: Data) -> tuple[_Shape, list[Finding]]:
    if not isinstance(data, dict):
        what = "the file is empty" if data is None else "expected the sections of a catalog"
        finding = Finding((), what, "Start with `models:`, see docs/catalog.md")
        broken = {"models", "fleet"}
        empty = _Shape({}, set(), {}, None, None, TelemetryEntry(), ForecastEntry(), broken)
        return empty, [finding]
    try:
        sound = CatalogFile.model_validate(data)
    except ValidationError as error:
        findings = explain(error)
        return _sound_part(data, findings), findings
    models = dict(enumerate(sound.models))
    tenants = dict(enumerate(sound.tenants))
    whole = set(models)
    sections = (sound.fleet, sound.policy, sound.telemetry, sound.forecast)
    return _Shape(models, whole, tenants, *sections, set()), []


def _sound_part(data: dict[str, Data], findings: list[Finding]) -> _Shape:
    """What can still be checked, so that one reading shows everything."""
    bad = {finding.path[:3] for finding in findings}
    broken = {str(path[0]) for path in bad if path}
    models = _entries(ModelEntry, "models", data, bad)
    fleet, policy = data.get("fleet"), data.get("policy")
    forecast = {} if "forecast" in broken else data.get("forecast") or {}
    return _Shape(
        models,
        models.keys() - {path[1] for path in bad if len(path) > 1 and path[0] == "models"},
        _entries(TenantEntry, "tenants", data, bad),
        _entry(FleetEntry, fleet) if fleet is not None and "fleet" not in broken else None,
        _entry(PolicyEntry, policy or {}) if "policy" not in broken else None,
        TelemetryEntry(),
        ForecastEntry.model_validate(forecast),
        broken,
    )


def _entries(kind: type[E], section: str, data: dict[str, Data], bad: set[Place]) -> dict[int, E]:
    listed = data.get(section)
    if not isinstance(listed, list) or (section,) in bad:
        return {}
    read = {}
    for i, item in enumerate(listed):
        if isinstance(item, dict):
            kept = {key: value for key, value in item.items() if (section, i, key) not in bad}
            read[i] = _entry(kind, kept)
    return {i: entry for i, entry in read.items() if entry is not None}


def _entry(kind: type[E], data: Data) -> E | None:
    try:
        return kind.model_validate(data)
    except ValidationError:
        return None


def _cross_checks(shape: _Shape) -> Iterable[Finding]:
    """Statements about the whole wait until the parts they rest on are sound."""
    named = list(check.names_of(shape.models))
    yield from check.check_models(shape.models, shape.whole)
    yield from check.check_names(named)
    intact = "models" not in shape.broken
    names = {name for _, name in named} if intact else None
    yield from check.check_tenants(shape.tenants, names)
    ids = {entry.id for entry in shape.models.values()} if intact else None
    yield from check.check_likeness(shape.models, ids)
    yield from check.check_events(shape.forecast, ids)
    if shape.policy is not None:
        yield from check.check_policy(shape.policy)
    if "fleet" not in shape.broken:
        fleet = shape.fleet or FleetEntry()
        specs = {i: convert.model_spec(shape.models[i], fleet) for i in sorted(shape.whole)}
        yield from _fleet_checks(specs, fleet, intact=intact)


def _fleet_checks(
    specs: dict[int, ModelSpec], fleet: FleetEntry, *, intact: bool
) -> Iterable[Finding]:
    unsound = [*check.check_nodes(fleet), *check.check_node_names(fleet)]
    yield from unsound
    yield from check.check_real_time(specs, fleet)
    yield from check.check_shares(specs)
    if unsound:
        return
    nodes = [spec for node in fleet.nodes for spec in convert.node_specs(node)]
    unfit = list(check.check_fit(specs, nodes))
    yield from unfit
    if intact and not unfit:
        yield from check.check_min_replicas(specs, nodes)
        yield from check.check_preloaded(specs, fleet)


def _catalog(shape: _Shape) -> Catalog:
    fleet = shape.fleet or FleetEntry()
    catalog = Catalog(
        version="",
        models=tuple(convert.model_spec(entry, fleet) for entry in shape.models.values()),
        nodes=tuple(spec for node in fleet.nodes for spec in convert.node_specs(node)),
        tenants=tuple(convert.tenant(entry) for entry in shape.tenants.values()),
        policy=convert.policy(shape.policy or PolicyEntry()),
        telemetry=convert.telemetry(shape.telemetry),
        forecast=convert.forecast(shape.forecast),
        time_scale=float(fleet.time_scale),
        seed=fleet.seed,
        vllm_python=fleet.vllm_python,
    )
    digest = hashlib.sha256(msgspec.json.encode(catalog)).hexdigest()
    return msgspec.structs.replace(catalog, version=digest[:12])


def _problems(findings: list[Finding], document: Document, file_name: str) -> list[Problem]:
    """In order of lines; a file that is wrong everywhere is not told about everywhere."""
    placed = sorted(
        ((finding.line or document.line(finding.path), finding) for finding in findings),
        key=lambda p: p[0],
    )
    problems = [
        Problem(
            file=file_name,
            line=line,
            field=dotted(finding.path),
            what=finding.what,
            remedy=finding.remedy,
        )
        for line, finding in placed[:PROBLEMS_MAX]
    ]
    if (more := len(placed) - PROBLEMS_MAX) > 0:
        what, last = f"{more} more problems like these", placed[-1][0]
        remedy = "Mend the ones above and check again"
        problems.append(Problem(file=file_name, line=last, field="", what=what, remedy=remedy))
    return problems


def _text_of(path: Path) -> str:
    """The text of a regular file of bearable size, or a problem that says why not."""
    try:
        if path.is_dir():
            raise _unreadable(path, "is a folder", "Name the file in it: catalog.yaml")
        if path.exists() and not path.is_file():
            raise _unreadable(path, "is no regular file", "Name a YAML file")
        with path.open("rb") as file:
            raw = file.read(CHARS_MAX * 4 + 1)
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(path, "no such file", "Check the path") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, "not UTF-8 text", "Save the file as UTF-8", line) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise _unreadable(path, f"cannot be read: {reason}", "Check its permissions") from None


def _unreadable(path: Path, what: str, remedy: str, line: int = 1) -> CatalogError:
    problem = Problem(file=str(path), line=line, field="", what=what, remedy=remedy)
    return CatalogError([problem])
