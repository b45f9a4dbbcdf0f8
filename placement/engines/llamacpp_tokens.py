"""Tokens of the llama.cpp engine, asked of the server that llama.cpp opens beside its model. ✎

In: bodies of the token routes. Out: status and body, in vLLM's shape or Anthropic's. A chat is
counted as it would be run: with the system message and the template of its answer. Never: runs a
model.
"""

from typing import Any

import httpx
import msgspec

from placement.engines.dialects.messages import MessagesTranslation, count_chat
from placement.engines.dialects.reading import UnfitError
from placement.engines.dialects.tokens import read_detokenize, read_tokenize, tokenized
from placement.engines.emulated_requests import error_body
from placement.engines.llamacpp_bodies import BadBodyError, with_system

_COUNT = "/v1/messages/count_tokens"
TOKEN_ROUTES = ("/tokenize", "/detokenize", _COUNT)
_TIMEOUT_S = 30.0


class Tokens:
    """Speaks llama.cpp's own HTTP. `key` is what its server was started with."""

    def __init__(self, address: str, key: str, longest: int, names: tuple[str, ...]) -> None:
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        self._longest = longest
        self._names = names

    async def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of a request to one of `TOKEN_ROUTES`."""
        refuse = MessagesTranslation.error_body if path == _COUNT else error_body
        try:
            if path == _COUNT:
                chat = count_chat(body)
                self._known(chat["model"])
                found: dict[str, Any] = {"input_tokens": len(await self._of_chat(chat))}
            elif path == "/tokenize":
                found = await self._tokenize(body)
            else:
                asked = read_detokenize(body)
                self._known(asked.model)
                answer = await self._ask("/detokenize", {"tokens": asked.tokens})
                found = {"prompt": answer["content"]}
        except UnfitError as error:
            status = 404 if error.param == "model" else 400
            return status, refuse(status, error.message, error.param)
        except BadBodyError as error:
            return 400, refuse(400, str(error), "messages")
        return 200, msgspec.json.encode(found)

    async def _tokenize(self, body: bytes) -> dict[str, Any]:
        asked = read_tokenize(body)
        self._known(asked.model)
        if asked.prompt is not None:
            special = asked.add_special_tokens is not False
            pieces = await self._of_text(asked.prompt, special=special)
        else:
            pieces = await self._of_chat({"messages": asked.messages, "tools": asked.tools})
        strings = [_text(piece["piece"]) for piece in pieces] if asked.return_token_strs else None
        return tokenized([piece["id"] for piece in pieces], strings, self._longest)

    def _known(self, model: str | None) -> None:
        if model is not None and model not in self._names:
            raise UnfitError(f"The model `{model}` does not exist.", "model")

    async def _of_chat(self, chat: dict[str, Any]) -> list[dict[str, Any]]:
        asked = {"messages": with_system(chat["messages"])}
        if chat.get("tools"):
            asked["tools"] = chat["tools"]
        answer = await self._ask("/apply-template", asked)
        return await self._of_text(answer["prompt"], special=True)

    async def _of_text(self, text: str, *, special: bool) -> list[dict[str, Any]]:
        asked = {"content": text, "add_special": special, "parse_special": True}
        answer = await self._ask("/tokenize", asked | {"with_pieces": True})
        found: list[dict[str, Any]] = answer["tokens"]
        return found

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._client.post(path, json=body)
        found: dict[str, Any] = answer.json()
        if answer.status_code != 200:
            raise UnfitError(str(found.get("error", {}).get("message", answer.text[:200])))
        return found


def _text(piece: str | list[int]) -> str:
    """A piece of a character comes as bytes."""
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")
