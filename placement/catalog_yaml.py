"""YAML text in, plain data out, with the line of every key. Nothing in a file can run or hang it.

In: text. Out: a `Document`: dicts, lists and scalars, the line of each path, and what was wrong on
the way (a key given twice). Raises `BrokenError` where nothing behind the spot can be understood.
Never: constructs objects from tags, reads a file. Plain scalars follow YAML 1.2's core schema, so
`no` is a text and `10:30` is not a number. Anchors, aliases and `<<` work within a budget.
"""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from placement.catalog_problems import BrokenError, Finding, Path, shown

CHARS_MAX = 1_000_000
DEPTH_MAX = 24
NODES_MAX = 100_000

Data: TypeAlias = "dict[str, Data] | list[Data] | str | int | float | bool | None"

# The C parser is ten times quicker; the base loader resolves no tags and constructs nothing.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,30}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", re.ASCII)


@dataclass(slots=True)
class Document:
    data: Data = None
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Line of the nearest thing that is there: a missing key is mended in its parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> Document:
    """One document of plain data. Raises `BrokenError`."""
    if len(text) > CHARS_MAX:
        raise BrokenError(Finding((), "the file is over 1 MB", "Is it really a catalog?"))
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise BrokenError(_syntax(error, text)) from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise BrokenError(Finding((), "a character that is no text", "Remove it", line)) from None
    document = Document()
    if root is not None:
        document.data = _Reading(document).read(root, ())
    return document


def _check_events(text: str) -> None:
    """Depth and size before the recursive part of the parser sees them."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            remedy = f"A catalog needs at most {DEPTH_MAX} levels"
            raise BrokenError(Finding((), "nested too deep", remedy, line))
        if count > NODES_MAX:
            raise BrokenError(Finding((), "too many entries", "Is it really a catalog?", line))


def _syntax(error: yaml.YAMLError, text: str) -> Finding:
    """The parser's own words without its quotation of the line, which may hold a secret."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        what = f"not valid YAML: {shown(said) if said else 'cannot be parsed'}"
        return Finding((), what, _syntax_remedy(said), line)
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position if isinstance(position, int) else 0) + 1
    return Finding((), "a control character that YAML forbids", "Remove it", line)


def _syntax_remedy(said: str) -> str:
    if "tab" in said or "cannot start any token" in said:
        return "Indent with spaces, and put text with special characters in quotes"
    if "single document" in said:
        return "Keep one document in the file: remove the line `---` and what follows"
    if "undefined alias" in said:
        return "Define it with & above its first use, or put the text in quotes"
    return "Check indentation, colons and quotes on this line and the one above"


class _Reading:
    """Walks composed nodes once, counting: shared nodes may be met many times over."""

    def __init__(self, document: Document) -> None:
        self._out = document
        self._met = 0

    def read(self, node: yaml.Node, path: Path) -> Data:
        line = node.start_mark.line + 1
        self._spend(len(path), path, line)
        self._out.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return _scalar(node)
        what = f"the tag {shown(node.tag.replace(_TAG, '!!'))} is not allowed here"
        raise BrokenError(
            Finding(path, what, "Remove the tag: catalogs hold plain data only", line)
        )

    def _spend(self, depth: int, path: Path, line: int) -> None:
        self._met += 1
        if self._met > NODES_MAX or depth > DEPTH_MAX:
            what = "aliases unfold to more than a catalog can hold"
            raise BrokenError(Finding(path[:4], what, "Write the entries out", line))

    def _mapping(self, node: yaml.MappingNode, path: Path, merges: int = 0) -> dict[str, Data]:
        """Own keys first, then merged ones that are not there yet, as `<<` is meant."""
        self._spend(len(path) + merges, path, node.start_mark.line + 1)
        found: dict[str, Data] = {}
        sources: list[yaml.MappingNode] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BrokenError(Finding(path, "a key must be a word", "Write `key: value`", line))
            if key.value == "<<" and not key.style:
                sources += self._merge_sources(value, path, line)
            elif key.value in found:
                first = self._out.lines[(*path, key.value)]
                remedy = f"Keep one: it was first given on line {first}"
                self._out.findings.append(Finding((*path, key.value), "given twice", remedy, line))
            else:
                self._out.lines.setdefault((*path, key.value), line)
                found[key.value] = self.read(value, (*path, key.value))
        for source in sources:
            found = self._mapping(source, path, merges + 1) | found
        return found

    def _merge_sources(self, value: yaml.Node, path: Path, line: int) -> list[yaml.MappingNode]:
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(source, yaml.MappingNode) for source in sources):
            what = "`<<` merges only blocks of keys"
            raise BrokenError(
                Finding(path, what, "Point it at an anchor of a block: `<<: *name`", line)
            )
        return list(sources)


def _scalar(node: yaml.ScalarNode) -> Data:
    """YAML 1.2's core schema for plain scalars; anything quoted is text."""
    text = str(node.value)
    if node.style:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        return float(text)
    return text
