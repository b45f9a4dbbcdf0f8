"""Validation errors in, findings for people out: what is wrong and what to write instead.

In: pydantic's errors about a `CatalogFile`. Out: `Finding`s. Never: repeats the value found.
"""

from typing import Any

from pydantic import ValidationError

from placement.catalog_fields import REMEDY, Entry
from placement.catalog_problems import Finding, Path, closest, shown
from placement.catalog_shape import SECTIONS

GUESSES_MAX = 200
"""Guessing what a key meant is slow: a file of nothing but wrong keys must not take long."""

_EXPECTED = {
    "string_type": ("expected text", "Put it in quotes if it looks like a number"),
    "int_type": ("expected a whole number", "Write digits only, without quotes or unit"),
    "int_from_float": ("expected a whole number", "Leave the fraction out"),
    "float_type": ("expected a number", "Write digits only, without quotes or unit"),
    "finite_number": ("expected a finite number", "Write digits only"),
    "bool_type": ("expected true or false", "Write true or false, without quotes"),
    "list_type": ("expected a list", "Write each item on a line of its own, after `- `"),
    "string_too_short": ("empty", "Fill it in or remove the key"),
}

_EXAMPLES = {
    "id": "id: llama-3.1-8b",
    "engine": "engine: emulated",
    "keys": "keys: [sha256:…], with a digest from `warmtide key new`",
    "gpus": "gpus: 8",
    "host_memory": "host_memory: 512 GB",
    "source": "source: /adapters/sql-lora",
    "prefill": "prefill: 35 ms",
    "decode_step": "decode_step: 15 ms",
    "name": "name: black-friday",
    "start": "start: 2026-12-01T09:00",
    "duration": "duration: 4 h",
    "models": "models: with at least one entry, `- id: m`",
}

_BLOCK = "Write `key: value` lines, or remove it; the keys are in docs/catalog.md"


def explain(error: ValidationError) -> list[Finding]:
    errors = error.errors(include_url=False, include_input=False)
    return [_finding(e, guess=i < GUESSES_MAX) for i, e in enumerate(errors)]


def section_of(path: Path) -> type[Entry] | None:
    """The entry that stands at a path; its fields are the keys known there."""
    return SECTIONS.get(tuple(part for part in path if isinstance(part, str)))


def _finding(error: Any, *, guess: bool) -> Finding:
    path: Path = error["loc"]
    kind: str = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "catalog":
        return Finding(path, str(context["what"]), str(context[REMEDY]))
    if kind == "missing":
        return Finding(path, "missing", f"Add `{_EXAMPLES.get(str(path[-1]), f'{path[-1]}: …')}`")
    if kind == "extra_forbidden":
        remedy = _instead_of(path) if guess else "Remove it"
        return Finding(path, f"unknown key `{shown(str(path[-1]))}`", remedy)
    if kind == "literal_error":
        return Finding(path, "not one of the known values", f"Write {context['expected']}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Finding(path, "expected a block of keys", _BLOCK)
    if kind in _EXPECTED:
        return Finding(path, *_EXPECTED[kind])
    return Finding(path, *_bounds(kind, context, str(error["msg"])))


def _bounds(kind: str, context: dict[str, Any], message: str) -> tuple[str, str]:
    match kind:
        case "greater_than_equal":
            return "too small", f"Write {context['ge']} or more"
        case "greater_than":
            return "too small", f"Write more than {context['gt']:g}"
        case "less_than_equal":
            return "too large", f"Write {context['le']} or less"
        case "less_than":
            return "too large", f"Write less than {context['lt']:g}"
        case "too_short":
            return "an empty list", f"Give at least {context['min_length']}, or remove the key"
        case "too_long":
            return "a list too long", f"Give at most {context['max_length']}"
        case _:
            return message[:1].lower() + message[1:], "See docs/catalog.md"


def _instead_of(path: Path) -> str:
    """The known key a mistake meant, or where the key belongs, or all that are known here."""
    key, here = str(path[-1]), section_of(path[:-1])
    if here is None:
        return "Remove it"
    if near := closest(key, here.model_fields):
        return f"Did you mean `{near}`?"
    elsewhere = [".".join(at) for at, entry in SECTIONS.items() if at and key in entry.model_fields]
    if elsewhere:
        return f"Here `{shown(key)}` means nothing; it belongs in `{elsewhere[0]}`"
    return f"Remove it. Known here: {', '.join(sorted(here.model_fields))}"
