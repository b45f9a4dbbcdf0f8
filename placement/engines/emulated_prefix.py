"""Which blocks of prompts an emulated engine still has in its KV cache, least recently used first.

In: the blocks of a prompt, at its admission and at the end of its prefill. Out: tokens that need
not be computed again. Never: counts against the cache's room, as a block gives way to a sequence.
"""

from collections import OrderedDict

from placement.engines.emulated_scheduler import BLOCK_TOKENS

_BLOCKS_MAX = 8192
"""Bounds the process, not the model: a remembered block costs about a hundred bytes."""


class PrefixCache:
    """Remembers as many blocks as the KV cache has, up to a bound."""

    def __init__(self, kv_tokens: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._blocks_max = min(kv_tokens // BLOCK_TOKENS, _BLOCKS_MAX)

    def known_tokens(self, blocks: tuple[int, ...]) -> int:
        """Tokens of the longest known prefix."""
        known = 0
        for block in blocks:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            known += BLOCK_TOKENS
        return known

    def remember(self, blocks: tuple[int, ...]) -> None:
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)

    def forget(self) -> None:
        self._blocks.clear()
