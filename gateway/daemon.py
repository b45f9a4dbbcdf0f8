"""Starting in the background, announcing, and ending what was started. An edge."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import typer

from gateway import state_dir
from gateway.progress import Steps, steps
from gateway.words import FAILED, fail, say
from placement.catalog import Catalog, EngineKind
from placement.fleets.local import end_leftovers

READY_WALL_S = 120.0
DOWN_WALL_S = 25.0
POLL_WALL_S = 0.05
LOG_TAIL_LINES = 20


def announce(card: state_dir.Card, catalog: Catalog, *, as_json: bool) -> None:
    """Say that it runs: what, a call to paste, and where to look."""
    ready = {
        "url": card.url,
        "admin_url": card.admin_url,
        "state_dir": card.state_dir,
        "pid": card.pid,
        "time_scale": card.time_scale,
        "models": [spec.id for spec in catalog.models],
    }
    if as_json:
        say(ready)
        return
    typer.echo(_welcome(card, catalog))


def _welcome(card: state_dir.Card, catalog: Catalog) -> str:
    gpus = sum(node.gpus for node in catalog.nodes)
    lines = [f"Warmtide serves at {card.url}/v1 (pid {card.pid})", ""]
    width = max((len(spec.id) for spec in catalog.models), default=0)
    for spec in catalog.models:
        where = {
            EngineKind.LLAMACPP: "real model on this machine's CPU",
            EngineKind.EMULATED: "emulated GPUs",
            EngineKind.VLLM: "vLLM",
            EngineKind.EXTERNAL: f"external: {', '.join(spec.endpoints)}",
        }[spec.engine]
        names = ", ".join([*spec.aliases, *(a.id for a in spec.adapters)])
        lines.append(f"  {spec.id:<{width}} {where}{f'  (also: {names})' if names else ''}")
    lines += [
        "",
        f"  fleet: {len(catalog.nodes)} nodes, {gpus} GPUs, trace time x{card.time_scale:g}",
    ]
    first = next((m.id for m in catalog.models if "chat" in m.tasks), "MODEL")
    key = " -H 'Authorization: Bearer YOUR_KEY'" if catalog.tenants else ""
    question = "What is the capital of France?"
    messages = f'[{{"role":"user","content":"{question}"}}]'
    body = f'{{"model":"{first}","temperature":0,"messages":{messages}}}'
    usual = Path(card.state_dir) == state_dir.named(None)
    over = "" if usual else f" --state-dir {card.state_dir}"
    lines += [
        "",
        "Try it:",
        f"  curl -s {card.url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\",
        f"    -d '{body}'",
        "",
        f"Look:  warmtide status{over}          (a live table; `--page` for a page)",
        f"       {card.url}/v1/models  (rungs and estimated waits)",
        f"       {card.state_dir}/  (logs, state, admin token)",
        f"End:   warmtide down{over}",
    ]
    return "\n".join(lines)


def detach(settings: dict[str, Any], *, as_json: bool) -> None:
    """Start `up` in a session of its own and wait for its line."""
    folder = Path(settings["state_dir"])
    command = [sys.executable, "-m", "gateway.main", "up", "--json"]
    flags = {
        "--catalog": settings["catalog_path"],
        "--fleet": settings["fleet"],
        "--host": settings["host"],
        "--port": settings["port"],
        "--admin-port": settings["admin_port"],
        "--state-dir": folder,
        "--time-scale": settings["time_scale"],
    }
    for flag, value in flags.items():
        if value is not None:
            command += [flag, str(value)]
    log_path = folder / "gateway.log"
    with log_path.open("ab") as log_file:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log_file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    document = _first_line(child, folder)
    if "url" not in document:
        child.wait(READY_WALL_S)
        _report_failed_start(document, log_path, child.returncode, as_json=as_json)
    if as_json:
        say(document)
        return
    card = state_dir.read_card(folder)
    assert card is not None, "a gateway that announced itself has left its card"
    from placement.catalog_file import load_catalog

    typer.echo(_welcome(card, load_catalog(Path(settings["catalog_path"]))))


def _first_line(child: "subprocess.Popen[bytes]", folder: Path) -> dict[str, Any]:
    """What the child says when it is ready or has failed; meanwhile its phases are shown."""
    assert child.stdout is not None, "stdout is a pipe"
    with steps() as shown:
        shown.step(f"starting the gateway (pid {child.pid})")
        while not select.select([child.stdout], [], [], POLL_WALL_S)[0]:
            phase = state_dir.read_phase(folder)
            if phase is not None and phase.pid == child.pid:
                shown.step(phase.told, name=phase.name)
        line = child.stdout.readline()
    try:
        document: dict[str, Any] = msgspec.json.decode(line) if line else {}
    except msgspec.DecodeError:
        return {}
    return document


def _report_failed_start(
    document: dict[str, Any], log_path: Path, code: int | None, *, as_json: bool
) -> None:
    if "error" in document or "problems" in document:
        if as_json:
            say(document)
        typer.echo(_told(document), err=True)
        raise typer.Exit(code or FAILED)
    lines = log_path.read_text("utf-8", "replace").splitlines()
    tail = "\n".join(lines[-LOG_TAIL_LINES:])
    fail(
        f"the gateway did not start (exit {code}); {log_path} ends with:\n{tail}",
        as_json=as_json,
        code=FAILED,
    )


def _told(document: dict[str, Any]) -> str:
    problems = document.get("problems", [])
    told = [f"{p['file']}:{p['line']}: {p['field']}: {p['what']}. {p['remedy']}" for p in problems]
    return "\n".join(told) or f"warmtide: {document['error']}"


def end(folder: Path, shown: Steps) -> list[str]:
    """Ask a running gateway to end, insist after a while, then end what it left."""
    ended: list[str] = []
    card = state_dir.read_card(folder)
    # One on its way up or down has no card, and says what it does.
    owner = card or state_dir.read_phase(folder)
    if owner is not None:
        name = f"gateway {card.url} (pid {card.pid})" if card else f"gateway (pid {owner.pid})"
        shown.step(f"asking the {name} to end")
        _end_gateway(owner, folder, shown)
        ended.append(name)
    shown.step("ending what was left running")
    ended += end_leftovers(folder)
    # Whoever wrote these is gone.
    state_dir.drop_card(folder)
    state_dir.drop_phase(folder)
    return ended


def _end_gateway(owner: state_dir.Card | state_dir.Phase, folder: Path, shown: Steps) -> None:
    os.kill(owner.pid, signal.SIGTERM)
    waited_s = 0.0
    while owner.alive and waited_s < DOWN_WALL_S:  # nobody's child cannot be waited for
        phase = state_dir.read_phase(folder)
        if phase is not None:
            shown.step(phase.told, name=phase.name)
        time.sleep(POLL_WALL_S)
        waited_s += POLL_WALL_S
    if owner.alive:
        shown.step(f"it did not end in {DOWN_WALL_S:g} s: killing pid {owner.pid}")
        os.kill(owner.pid, signal.SIGKILL)
