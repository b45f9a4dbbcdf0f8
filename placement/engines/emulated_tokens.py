"""Tokens of an emulated engine: every four characters are one, and its id is what they say. Pure.

In: bodies of the token routes and what the replica serves. Out: status and body, in vLLM's shape or
Anthropic's. A chat has as many tokens here as its usage tells. Never: knows a real vocabulary.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from placement.engines.dialects.messages import MessagesTranslation, count_chat
from placement.engines.dialects.reading import UnfitError
from placement.engines.dialects.tokens import read_detokenize, read_tokenize, tokenized
from placement.engines.emulated_requests import (
    CHARS_PER_TOKEN,
    Job,
    Limits,
    Refused,
    chat_tokens,
    error_body,
    parse,
    unknown_model,
)

_CHAR_BITS = 13
"""Four characters make an id below 2^52, which every client's numbers can hold. Characters beyond
U+1FFF do not fit and come back as U+FFFD."""
_LOST = 1
_TEMPLATE = 0
"""The id of what a chat has beside its texts. It says nothing."""
_COUNT = "/v1/messages/count_tokens"


def ids_of(text: str) -> list[int]:
    starts = range(0, len(text), CHARS_PER_TOKEN)
    return [_pack(text[start : start + CHARS_PER_TOKEN]) for start in starts]


def text_of(ids: list[int]) -> str:
    """The text of ids that `ids_of` gave; of any others, something."""
    return "".join(_unpack(token) for token in ids)


def _pack(piece: str) -> int:
    token = 0
    for char in reversed(piece):
        token = token << _CHAR_BITS | (ord(char) if ord(char) >> _CHAR_BITS == 0 else _LOST)
    return token


def _unpack(token: int) -> str:
    found = []
    for _ in range(CHARS_PER_TOKEN):
        code = token & ((1 << _CHAR_BITS) - 1)
        found.append("\N{REPLACEMENT CHARACTER}" if code == _LOST else chr(code) if code else "")
        token >>= _CHAR_BITS
    return "".join(found)


def answer(path: str, body: bytes, limits: Limits) -> Refused:
    """Status and body of a request to one of `TOKEN_ROUTES`."""
    try:
        found = TOKEN_ROUTES[path](body, limits)
    except UnfitError as error:
        told = MessagesTranslation.error_body if path == _COUNT else error_body
        return Refused(400, told(400, error.message, error.param))
    return found if isinstance(found, Refused) else Refused(200, msgspec.json.encode(found))


def _tokenize(body: bytes, limits: Limits) -> Refused | dict[str, Any]:
    asked = read_tokenize(body)
    unknown = unknown_model(asked.model, limits)
    if unknown is not None:
        return unknown
    if asked.prompt is not None:
        ids = ids_of(asked.prompt)
    else:
        texts = chat_tokens(asked.messages or [])
        if isinstance(texts, Refused):
            return texts
        template, pieces = texts
        ids = [token for piece in pieces for token in ids_of(piece)] + [_TEMPLATE] * template
    strings = [_unpack(token) for token in ids] if asked.return_token_strs else None
    return tokenized(ids, strings, limits.longest_tokens)


def _detokenize(body: bytes, limits: Limits) -> Refused | dict[str, Any]:
    asked = read_detokenize(body)
    return unknown_model(asked.model, limits) or {"prompt": text_of(asked.tokens)}


def _count(body: bytes, limits: Limits) -> Refused | dict[str, Any]:
    chat = msgspec.json.encode(count_chat(body))
    job = parse("/v1/chat/completions", chat, limits)
    if isinstance(job, Job):
        return {"input_tokens": job.prompt_tokens}
    error = msgspec.json.decode(job.body)["error"]
    return Refused(job.status, MessagesTranslation.error_body(job.status, error["message"], None))


TOKEN_ROUTES: dict[str, Callable[[bytes, Limits], Refused | dict[str, Any]]] = {
    "/tokenize": _tokenize,
    "/detokenize": _detokenize,
    _COUNT: _count,
}
