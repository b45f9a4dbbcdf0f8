"""Scenarios on disk: those that come with Warmtide, and files of one's own. An edge.

In: a name or a path. Out: `Scenario`s. Never: builds or runs one.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from loadtests.scenarios.shape import ScenarioError, ScenarioFile, parse_scenario
from placement.catalog_problems import closest

SUFFIX = ".toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A parsed scenario file, the name it goes by and a digest of its text."""

    name: str
    file: ScenarioFile
    digest: str


def shipped() -> list[str]:
    """Names of the scenarios that come with Warmtide."""
    folder = files("loadtests") / "scenarios"
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def load_scenario(name: str) -> Scenario:
    """A shipped scenario by its name, or a file by its path."""
    path = Path(name) if name.endswith(SUFFIX) else _shipped_path(name)
    try:
        text = path.read_bytes()
        data = tomllib.loads(text.decode())
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: is not TOML: {error}") from None
    digest = hashlib.sha256(text).hexdigest()[:16]
    return Scenario(name=path.stem, file=parse_scenario(data, path.name), digest=digest)


def _shipped_path(name: str) -> Path:
    known = shipped()
    if name not in known:
        near = closest(name, known)
        guess = f"did you mean {near}? " if near else ""
        raise ScenarioError(f"no scenario {name!r}: {guess}there are {', '.join(known)}")
    return Path(str(files("loadtests") / "scenarios" / f"{name}{SUFFIX}"))
