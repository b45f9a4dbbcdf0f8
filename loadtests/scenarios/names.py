"""Which scenarios come with Warmtide. An edge, and light: the command line completes with it.

In: nothing. Out: names, paths. Never: reads a scenario.
"""

from importlib.resources import files
from pathlib import Path

SUFFIX = ".toml"


def shipped() -> list[str]:
    """Names of the scenarios that come with Warmtide."""
    folder = files("loadtests") / "scenarios"
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def path_of(name: str) -> Path:
    return Path(str(files("loadtests") / "scenarios" / f"{name}{SUFFIX}"))
