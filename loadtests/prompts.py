"""Bodies of chat requests of about an asked size. Pure and seeded.

In: a schedule's row. Out: JSON bytes. Requests that share prefix blocks share the text of them.
Never: repeats a text by accident (an engine's prefix cache would answer for the prompt).
"""

from typing import Any

import msgspec

from loadtests.draws import stream
from prewarm.traces.records import Requests

CHARS_PER_TOKEN = 4
_WORDS = (
    "tide harbour signal lantern window copper meadow winter engine letter river market silver "
    "garden planet thunder orchard bridge candle forest number island mirror pocket season valley"
)


class Prompts:
    """Texts for one replay. The pool of words is drawn once; prompts are cut from it."""

    def __init__(self, seed: int) -> None:
        words = stream(seed, "prompt text").choice(_WORDS.split(), 20_000)
        self._pool = " ".join(words.tolist())
        self._seed = seed

    def text(self, index: int, tokens: int, blocks: tuple[int, ...], block_tokens: int) -> str:
        """About `tokens` tokens: shared blocks first, then a tail of the request's own."""
        size = tokens * CHARS_PER_TOKEN
        shared = "".join(
            self._piece(f"[{block}] ", block, block_tokens * CHARS_PER_TOKEN)
            for block in blocks[: tokens // block_tokens]
        )
        own = self._piece(f"({self._seed}.{index}) ", index, max(0, size - len(shared)))
        return (shared + own)[:size] or "?"

    def _piece(self, mark: str, number: int, size: int) -> str:
        """`size` characters that begin with a mark and differ from number to number."""
        text = mark
        while len(text) < size:
            start = (number * 7919) % (len(self._pool) // 2)
            text += self._pool[start : start + size - len(text)]
        return text[:size]

    def body(self, schedule: Requests, index: int) -> bytes:
        """The chat request of a schedule's row: streaming, usage wanted, length fixed."""
        blocks = schedule.prefix_blocks[index] if schedule.prefix_blocks else ()
        tokens = int(schedule.prompt_tokens[index])
        request: dict[str, Any] = {
            "model": schedule.streams[schedule.stream[index]],
            "messages": [
                {
                    "role": "user",
                    "content": self.text(index, tokens, blocks, schedule.block_tokens),
                }
            ],
            "max_tokens": int(schedule.output_tokens[index]),
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        }
        return msgspec.json.encode(request)
