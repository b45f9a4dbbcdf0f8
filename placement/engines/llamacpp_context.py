"""How much a llama.cpp engine opens for a model: slots, and tokens in each. Pure.

In: a `ModelSpec`. Out: counts, the same for the engine and for whoever asks beforehand what it
takes. Never: loads llama.cpp.
"""

from placement.catalog import ModelSpec

_SLOTS_MAX = 4
_SLOT_TOKENS_MAX = 2048


def slots(spec: ModelSpec) -> int:
    """Requests that run at once."""
    return max(min(spec.max_num_seqs, _SLOTS_MAX), 1)


def slot_tokens(spec: ModelSpec) -> int:
    """Prompt and answer of one request together."""
    return min(spec.max_model_len, _SLOT_TOKENS_MAX)


def context_tokens(spec: ModelSpec) -> int:
    """Tokens that the KV cache has room for."""
    return slots(spec) * slot_tokens(spec)
