"""`/tokenize` and `/detokenize`, as vLLM has them, at the gateway's doors. Pure.

In: their bodies as bytes. Out: the model they name. Never: counts a token; engines do.
"""

import msgspec

from gateway.openai_api import (
    AnyHead,
    BadBodyError,
    Head,
    Messages,
    check_message_count,
    decode_body,
    is_text_input,
)


class _TokenizeHead(AnyHead, kw_only=True):
    prompt: str | None = None
    messages: Messages | None = None


class _DetokenizeHead(AnyHead, kw_only=True):
    tokens: msgspec.Raw


_TOKENIZE = msgspec.json.Decoder(_TokenizeHead)
_DETOKENIZE = msgspec.json.Decoder(_DetokenizeHead)


def read_text(body: bytes) -> Head:
    """The head of a request to `/tokenize`. Raises `BadBodyError`."""
    check_message_count(body)
    head: _TokenizeHead = decode_body(_TOKENIZE, body)
    if (head.prompt is None) == (head.messages is None):
        raise BadBodyError("send either `prompt`, a text, or `messages`, a chat")
    return Head(head.model, stream=False)


def read_tokens(body: bytes) -> Head:
    """The head of a request to `/detokenize`. Raises `BadBodyError`."""
    head: _DetokenizeHead = decode_body(_DETOKENIZE, body)
    given = memoryview(head.tokens)
    raw = bytes(given[:64])
    first = raw[1:].lstrip()[:1]
    if raw[:1] != b"[" or not (first == b"]" or (first.isdigit() and is_text_input(given))):
        raise BadBodyError("`tokens` must be a list of token ids")
    return Head(head.model, stream=False)
