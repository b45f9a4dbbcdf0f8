"""`/tokenize` and `/detokenize` as vLLM has them, for engines of ours. Pure.

In: their bodies. Out: what to count, as a text or a chat; answers in vLLM's shape. Never: knows a
vocabulary.
"""

from typing import Any

import msgspec

from placement.engines.dialects.reading import UnfitError, read


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """A text or a chat whose tokens are asked for."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """Tokens whose text is asked for."""

    model: str | None = None
    tokens: list[int]


def read_tokenize(body: bytes) -> TokenizeRequest:
    """Raises `UnfitError`."""
    asked = read(body, TokenizeRequest)
    if (asked.prompt is None) == (asked.messages is None):
        raise UnfitError("send either `prompt`, a text, or `messages`, a chat")
    if asked.messages is not None and (
        asked.continue_final_message or not asked.add_generation_prompt
    ):
        field = (
            "continue_final_message" if asked.continue_final_message else "add_generation_prompt"
        )
        raise UnfitError(f"`{field}` is not supported by this engine: leave it out", field)
    return asked


def read_detokenize(body: bytes) -> DetokenizeRequest:
    """Raises `UnfitError`."""
    asked = read(body, DetokenizeRequest)
    if any(token < 0 for token in asked.tokens):
        raise UnfitError("`tokens`: ids are whole numbers from 0 up", "tokens")
    return asked


def tokenized(tokens: list[int], strings: list[str] | None, longest: int) -> dict[str, Any]:
    """vLLM's answer; `longest` is what prompt and answer may have together."""
    return {
        "count": len(tokens),
        "max_model_len": longest,
        "tokens": tokens,
        "token_strs": strings,
    }
