"""Commands asking a running gateway's admin port. An edge."""

from pathlib import Path
from typing import Any

import httpx

from gateway import state_dir
from gateway.words import BAD_INPUT, FAILED, fail

TIMEOUT_WALL_S = 20.0


def ask(
    card: state_dir.Card, method: str, path: str, *, as_json: bool, text: str = "", name: str = ""
) -> dict[str, Any]:
    """The admin port's answer; failures end the command with what to do."""
    token = state_dir.admin_token(Path(card.state_dir))
    headers = {"authorization": f"Bearer {token}", "x-catalog-name": name}
    try:
        answer = httpx.request(
            method,
            f"{card.admin_url}{path}",
            headers=headers,
            content=text.encode() or None,
            timeout=TIMEOUT_WALL_S,
            trust_env=False,
        )
        document: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        fail(f"{card.admin_url}{path} does not answer: {error}", as_json=as_json, code=FAILED)
    if not answer.is_success:
        message = document.get("error", {}).get("message") or str(document)
        fail(message, as_json=as_json, code=BAD_INPUT)
    return document
