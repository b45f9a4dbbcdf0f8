"""`warmtide history import`: past demand from a file or a Prometheus into the history. An edge.

In: command line. Out: rows in the state directory's history, and on stdout what was imported, what
was left out and why. Never: takes a token from the command line, changes anything with --dry-run or
after an error.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gateway import state_dir
from gateway.environment import secret_of
from gateway.words import BAD_INPUT, FAILED, BadInputError, fail, say
from placement.catalog import HistoryKept
from placement.catalog_units import UnitError, parse_time_us
from placement.clock import wall_us

if TYPE_CHECKING:
    from gateway.prometheus import Asked
    from placement.catalog import Catalog
    from prewarm.cleaning import Cleaned
    from prewarm.history_import import Stored
    from prewarm.importing import Naming, Prepared

STEPS = {"1min": 60_000_000, "5min": 300_000_000}
NOTES_SHOWN = 8
NAMES_SHOWN = 20


def _option(help_: str, *names: str) -> Any:
    return typer.Option(*names, help=help_)


class Source(NamedTuple):
    """What was found, and under which name to speak of it."""

    name: str
    cleaned: "Cleaned"


class Elsewhere(NamedTuple):
    """The options of a range query, as they were given."""

    url: str
    queries: tuple[str, str, str]
    """Requests, prompt tokens, output tokens; the last two may be empty."""
    start: str
    step: str
    label: str
    timeout: str


class Order(NamedTuple):
    """What to do with what is found."""

    path: Path
    mapped: dict[str, str]
    replace: bool
    dry_run: bool


def import_(
    file: Annotated[Path | None, typer.Argument(help="A counts file: a column a model.")] = None,
    prometheus: Annotated[
        str, _option("Ask this Prometheus instead, as in http://host:9090.")
    ] = "",
    query: Annotated[
        str, _option("Requests, as in 'sum by (model) (increase(requests_total[5m]))'.")
    ] = "",
    prompt_query: Annotated[str, _option("The same for prompt tokens.")] = "",
    output_query: Annotated[str, _option("The same for output tokens.")] = "",
    start: Annotated[str, _option("How far back to ask, for example '14d'.")] = "14d",
    step: Annotated[str, _option(f"Of the query: {' or '.join(STEPS)}.")] = "5min",
    label: Annotated[str, _option("The label that names the model.")] = "model",
    token_env: Annotated[str, _option("Variable that holds the bearer token.")] = "",
    token_file: Annotated[Path | None, _option("File that holds the bearer token.")] = None,
    timeout: Annotated[str, _option("How long one answer may take.")] = "60 s",
    zone: Annotated[str, _option("Of times in the file that have none.")] = "UTC",
    mapped: Annotated[list[str] | None, _option("column=model; repeatable.", "--map")] = None,
    catalog: Annotated[
        Path | None, _option("To know the models by; default: the running gateway's.")
    ] = None,
    replace: Annotated[
        bool, _option("Also where the gateway has measured itself.", "--replace")
    ] = False,
    dry_run: Annotated[bool, _option("Say what would be done.", "--dry-run")] = False,
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Import past demand, so that forecasts start warm; twice is the same as once."""
    if (file is None) == (not prometheus):
        raise BadInputError("give either a file or --prometheus URL with --query")
    queries = (query, prompt_query, output_query)
    elsewhere = Elsewhere(prometheus, queries, start, step, label, timeout)
    path = _history(state_dir_, dry_run=dry_run)
    order = Order(path, _mapped(mapped or []), replace=replace, dry_run=dry_run)
    known = _catalog(catalog, path.parent, as_json=as_json)
    told = _imported(
        order,
        known,
        lambda: (
            _from_file(file, zone)
            if file is not None
            else _from_prometheus(elsewhere, _token(token_env, token_file))
        ),
        as_json=as_json,
    )
    if as_json:
        say(told)
    else:
        typer.echo("\n".join(_lines(told)))


def _imported(
    order: Order, known: "Catalog | None", fetch: Callable[[], Source], *, as_json: bool
) -> dict[str, Any]:
    """What became of it, in words and numbers; errors end the command with nothing changed."""
    from gateway.prometheus import PrometheusError
    from prewarm.history_import import CannotStoreError
    from prewarm.importing import CannotImportError, name_columns, prepare
    from prewarm.traces.records import TraceError

    ids = _ids(known)
    kept = HistoryKept() if known is None else known.telemetry.history
    try:
        source = fetch()
        panel = source.cleaned.panel
        _check_map(order.mapped, source, ids)
        naming = name_columns(panel.streams, order.mapped, ids)
        if not naming.models:
            raise BadInputError(
                f"{source.name}: no column is of a model in the catalog: "
                f"{', '.join(panel.streams[:NAMES_SHOWN])}; name one with --map column=model"
            )
        prepared = prepare(source.name, panel, naming, kept, wall_us())
        stored = _stored(order, prepared)
    except (TraceError, CannotImportError) as error:
        fail(str(error), as_json=as_json, code=BAD_INPUT)
    except (PrometheusError, CannotStoreError) as error:
        fail(str(error), as_json=as_json, code=FAILED)
    return {
        "history": str(order.path),
        "dry_run": order.dry_run,
        "names_checked": known is not None,
        **_told(source, naming, prepared, stored),
    }


# --- what is asked


def _history(given: Path | None, *, dry_run: bool) -> Path:
    folder = state_dir.named(given) if dry_run else state_dir.writable_folder(given)
    card = state_dir.read_card(folder)
    if card is not None and card.time_scale != 1.0:
        raise BadInputError(
            f"the gateway over {folder} runs at time scale {card.time_scale:g} and begins its "
            "history anew with every start; import into a folder of its own, or run it at scale 1"
        )
    return state_dir.history_file(folder, 1.0)


def _catalog(given: Path | None, folder: Path, *, as_json: bool) -> "Catalog | None":
    """The one that was named, else the running gateway's; None: no catalog is at hand."""
    from gateway.catalog_cli import report_problems
    from placement.catalog_file import CatalogError, load_catalog

    card = state_dir.read_card(folder)
    path = given or (Path(card.catalog) if card is not None else None)
    if path is None:
        return None
    try:
        return load_catalog(path)
    except CatalogError as error:
        report_problems(error, as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None


def _ids(catalog: "Catalog | None") -> dict[str, str] | None:
    """Every name that a client may ask for, to the model that answers."""
    if catalog is None:
        return None
    return {name: str(spec.id) for name, (spec, _) in catalog.names().items()}


def _mapped(given: list[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        column, equals, model = pair.rpartition("=")
        if not (column and equals and model):
            raise BadInputError(f"--map {pair}: write column=model")
        found[column] = model
    return found


def _check_map(mapped: dict[str, str], source: Source, ids: dict[str, str] | None) -> None:
    for column, model in mapped.items():
        if column not in source.cleaned.panel.streams:
            there = ", ".join(source.cleaned.panel.streams[:NAMES_SHOWN])
            raise BadInputError(f"--map {column}={model}: {source.name} has no {column}; {there}")
        if ids is not None and model not in ids:
            models = ", ".join(sorted(set(ids.values())))
            raise BadInputError(f"--map {column}={model}: the catalog has no {model}; {models}")


def _token(variable: str, file: Path | None) -> str:
    if variable and file is not None:
        raise BadInputError("give one of --token-env and --token-file")
    if variable:
        token = secret_of(variable)
        if not token:
            raise BadInputError(f"--token-env {variable}: the variable is not set")
        return _one_word(token, f"--token-env {variable}")
    if file is None:
        return ""
    try:
        return _one_word(file.read_text("utf-8"), f"--token-file {file}")
    except (OSError, UnicodeError) as error:
        raise BadInputError(f"--token-file {file}: cannot be read: {error}") from None


def _one_word(token: str, option: str) -> str:
    """Checked here: an error further down would show the token."""
    token = token.strip()
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise BadInputError(
            f"{option}: holds no bearer token, which is one word of plain ASCII in one line"
        )
    return token


# --- where it comes from


def _from_file(file: Path, zone: str) -> Source:
    from gateway.progress import steps
    from prewarm.traces.lenient import read_panel

    with steps() as shown:
        shown.step(f"reading {file}")
        return Source(file.name, read_panel(file, zone=zone))


def _from_prometheus(elsewhere: Elsewhere, token: str) -> Source:
    from gateway.progress import steps
    from gateway.prometheus import joined, range_query
    from prewarm.cleaning import clean
    from prewarm.repair_notes import Notes

    asked = _asked(elsewhere)
    url = elsewhere.url
    with steps() as shown:
        raw = joined([range_query(one, token, shown.step) for one in asked])
    if not raw.streams:
        raise BadInputError(f"{url} knows no series for {elsewhere.queries[0]} in that time")
    return Source(url, clean(raw, notes=Notes(raw.streams, unit="window")))


def _asked(elsewhere: Elsewhere) -> "list[Asked]":
    from gateway.prometheus import Asked, overlapping

    url, queries, start, step, label, timeout = elsewhere
    if not queries[0]:
        raise BadInputError("--prometheus needs --query")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise BadInputError(
            "--prometheus: no passwords on the command line, where everybody sees them; give a "
            "token with --token-env or --token-file"
        )
    if step not in STEPS:
        raise BadInputError(f"--step {step}: the history keeps windows of {' and '.join(STEPS)}")
    step_us = STEPS[step]
    for query in queries:
        if other := overlapping(query, step_us):
            raise BadInputError(
                f"{query}: counts over [{other}], but the step is {step}: windows would overlap or "
                "leave gaps; make the two equal"
            )
    end_us = wall_us() // step_us * step_us
    back_us = -(-_time_us("--start", start) // step_us) * step_us
    suffixes = ("", "_prompt_tokens", "_output_tokens")
    return [
        Asked(
            url=url,
            query=query,
            start_us=end_us - back_us,
            end_us=end_us,
            step_us=step_us,
            label=label,
            suffix=suffix,
            timeout_wall_s=_time_us("--timeout", timeout) / 1e6,
        )
        for query, suffix in zip(queries, suffixes, strict=True)
        if query
    ]


def _time_us(option: str, text: str) -> int:
    try:
        found = parse_time_us(text)
    except UnitError as error:
        raise BadInputError(f"{option} {text}: {error}") from None
    if not found:
        raise BadInputError(f"{option} {text}: nothing is left of it; write for example 14d")
    return found


# --- what came of it


def _stored(order: Order, prepared: "Prepared") -> "Stored":
    from gateway.progress import steps
    from prewarm.history_import import store, would_store

    with steps() as shown:
        shown.step(f"writing {order.path}")
        act = would_store if order.dry_run else store
        return act(order.path, prepared.rows, replace=order.replace)


def _told(
    source: Source, naming: "Naming", prepared: "Prepared", stored: "Stored"
) -> dict[str, Any]:
    models: dict[str, dict[str, int]] = {
        model: {"windows": 0, "requests": 0} for model in naming.models
    }
    for row in prepared.rows[max(prepared.rows)]:
        models[row.model]["windows"] += 1
        models[row.model]["requests"] += row.offered
    return {
        "windows_written": stored.written,
        "windows_replaced": stored.replaced,
        "windows_kept": stored.kept,
        "windows_kept_in_part": stored.kept_partly,
        "models": models,
        "unknown": list(naming.unknown),
        "remarks": list(prepared.remarks),
        "notes": {stream: list(notes) for stream, notes in source.cleaned.notes.items() if notes},
    }


def _lines(told: dict[str, Any]) -> Iterator[str]:
    would = "would be " if told["dry_run"] else ""
    yield f"{told['windows_written']} windows {would}written into {told['history']}"
    for model, sums in told["models"].items():
        yield f"  {model}: {sums['requests']} requests in {sums['windows']} windows of 5 min"
    if told["windows_replaced"]:
        yield f"{told['windows_replaced']} of them {would}in place of the gateway's own"
    if told["windows_kept"]:
        yield (
            f"{told['windows_kept']} windows that the gateway measured itself stay "
            f"({told['windows_kept_in_part']} of them it watched in part only); --replace takes "
            "the imported ones"
        )
    if told["unknown"]:
        yield (
            f"of no model in the catalog, left out: {', '.join(told['unknown'])}; name their "
            "models with --map column=model"
        )
    if not told["names_checked"]:
        yield "no catalog was at hand, so models' names were not checked (--catalog FILE)"
    yield from told["remarks"]
    notes = [f"{stream}: {n}" for stream, found in told["notes"].items() for n in found]
    yield from notes[:NOTES_SHOWN]
    if len(notes) > NOTES_SHOWN:
        yield f"{len(notes) - NOTES_SHOWN} more notes; --json shows all"
