"""Scenarios on disk: those that come with Warmtide, and files of one's own. An edge.

In: a name or a path. Out: `Scenario`s. Never: builds or runs one.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from loadtests.errors import no_such
from loadtests.scenarios.names import SUFFIX, path_of, shipped
from loadtests.scenarios.shape import ScenarioError, ScenarioFile, parse_scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A parsed scenario file and the name it goes by."""

    name: str
    file: ScenarioFile


def load_scenario(name: str) -> Scenario:
    """A shipped scenario by its name, or a file by its path."""
    path = Path(name) if name.endswith(SUFFIX) else _shipped_path(name)
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: is not TOML: {error}") from None
    return Scenario(name=path.stem, file=parse_scenario(data, path.name))


def _shipped_path(name: str) -> Path:
    known = shipped()
    if name not in known:
        raise ScenarioError(no_such("scenario", name, known))
    return path_of(name)
