"""Commands asking a running gateway's admin port. An edge."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gateway import state_dir
from gateway.progress import Steps
from gateway.words import BAD_INPUT, FAILED, fail

TIMEOUT_WALL_S = 20.0


def ask(
    card: state_dir.Card,
    method: str,
    path: str,
    shown: Steps,
    *,
    as_json: bool,
    text: str = "",
    name: str = "",
) -> dict[str, Any]:
    """The admin port's answer; failures end the command with what to do."""
    _, document = _asked(card, method, path, shown, as_json=as_json, text=text, name=name)
    return document


def ask_bytes(card: state_dir.Card, path: str, shown: Steps, *, as_json: bool) -> bytes:
    """The same as it was sent: for whoever reads it with a schema of its own."""
    answer, _ = _asked(card, "GET", path, shown, as_json=as_json)
    return answer.content


def _asked(
    card: state_dir.Card,
    method: str,
    path: str,
    shown: Steps,
    *,
    as_json: bool,
    text: str = "",
    name: str = "",
) -> tuple[httpx.Response, dict[str, Any]]:
    shown.step(f"asking the gateway at {card.admin_url}")
    try:
        answer = request(card, method, path, text=text, name=name)
        document: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        shown.rest()
        fail(
            f"{card.admin_url}{path} does not answer: {error}. Look at {card.state_dir}/"
            f"gateway.log; `warmtide down` ends the gateway (pid {card.pid})",
            as_json=as_json,
            code=FAILED,
        )
    shown.rest()
    if not answer.is_success:
        message = document.get("error", {}).get("message") or str(document)
        fail(message, as_json=as_json, code=BAD_INPUT)
    return answer, document


def request(
    card: state_dir.Card,
    method: str,
    path: str,
    *,
    text: str = "",
    name: str = "",
    timeout_wall_s: float = TIMEOUT_WALL_S,
) -> httpx.Response:
    """The admin port's answer, whatever it is. Raises `httpx.HTTPError`."""
    token = state_dir.admin_token(Path(card.state_dir))
    return httpx.request(
        method,
        f"{card.admin_url}{path}",
        headers={"authorization": f"Bearer {token}", "x-catalog-name": quote(name)},
        content=text.encode() or None,
        timeout=timeout_wall_s,
        trust_env=False,
    )
