"""Streams whose events name their type, as OpenAI's Responses and Anthropic's Messages. Pure.

In: bytes as they were read, the time, a `Grammar`. Out: the same bytes, whole events at a time, and
what they tell: the first text, usage, an error, the end. Types are taken from the line `event:`;
an event is decoded where it has none, and where something in it counts.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from gateway.events import EventRelay, gap
from gateway.openai_api import Usage, data_of

_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})\b')


class Grammar(NamedTuple):
    """What the types of a dialect's events mean."""

    deltas: frozenset[bytes]
    """May carry the first piece of an answer."""
    ends: frozenset[bytes]
    """After one of these the stream is whole."""
    failures: frozenset[bytes]
    counts: frozenset[bytes]
    """Carry usage."""
    usage_of: Callable[[bytes, Usage], Usage]
    """Usage so far and an event's JSON, to usage with what that says."""
    event_bytes_max: int


class _Type(msgspec.Struct):
    type: str = ""
    error: Any = None


class _Delta(msgspec.Struct):
    delta: Any = None


_TYPE = msgspec.json.Decoder(_Type)
_DELTA = msgspec.json.Decoder(_Delta)
_NO_USAGE = Usage()


class TypedEventRelay(EventRelay):
    """State of one such stream."""

    __slots__ = ("_grammar", "_usage", "_whole", "event_bytes_max")

    def __init__(self, grammar: Grammar) -> None:
        super().__init__()
        self._grammar = grammar
        self._usage = _NO_USAGE
        self._whole = False
        self.event_bytes_max = grammar.event_bytes_max

    def _pass(self, data: bytes, now_us: int) -> bytes:
        for event in data.split(gap(data)):
            if event:
                self._look(event, now_us)
        self._tail = data
        return data

    def _look(self, event: bytes, now_us: int) -> None:
        grammar, kind = self._grammar, type_of(event)
        if kind in grammar.deltas:
            if not self.first_us and _has_delta(event):
                self.first_us = now_us
            return
        self._whole = self._whole or kind in grammar.ends
        self.error = self.error or kind in grammar.failures
        if kind in grammar.counts:
            data = data_of(event)
            self._usage = self._usage if data is None else grammar.usage_of(data, self._usage)

    @property
    def done(self) -> bool:
        return self._whole or self._rest_type() in self._grammar.ends

    @property
    def sequence(self) -> int:
        numbers = _SEQUENCE.findall(self._tail)
        return int(numbers[-1]) + 1 if numbers else 0

    def usage(self) -> Usage | None:
        usage = self._usage
        if self._rest_type() in self._grammar.counts:
            usage = self._grammar.usage_of(data_of(self._partial) or b"", usage)
        return None if usage is _NO_USAGE else usage

    def _rest_type(self) -> bytes:
        """The type of a last event of which nothing but the blank line was left out."""
        whole = bool(self._partial) and _is_object(data_of(self._partial))
        return type_of(self._partial) if whole else b""


def type_of(event: bytes) -> bytes:
    """The type of an event; `error` of one that has none but an `error`; empty where it says
    nothing."""
    if event.startswith(b"event:"):
        return event[6:].split(b"\n", 1)[0].strip()
    data = data_of(event)
    if data is None:
        return b""
    try:
        found = _TYPE.decode(data)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return b""
    return found.type.encode() or (b"error" if found.error else b"")


def _is_object(data: bytes | None) -> bool:
    try:
        msgspec.json.decode(data or b"", type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return False
    return True


def _has_delta(event: bytes) -> bool:
    """Whether a delta carries something: a text, or an object of a type with a text in it."""
    data = data_of(event)
    try:
        delta = _DELTA.decode(data or b"").delta
    except (msgspec.ValidationError, msgspec.DecodeError):
        return False
    if isinstance(delta, dict):
        return any(value for key, value in delta.items() if key != "type")
    return bool(delta)
