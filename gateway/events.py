"""A stream of server-sent events on its way through: whole events only, and what they tell. Pure.

In: bytes as they were read, the time. Out: bytes that end where an event ends, so that an error
event can always follow. It looks into the first events (TTFT) and the last (usage), no others.
"""

import re

from gateway.openai_api import Usage, has_text, usage_in
from gateway.usage import without_usage_event

_ERROR = re.compile(rb'"error"\s*:\s*["{]')
"""A field `error` that says something. Inside a JSON string its quotes would be escaped; where
logprobs name the token "error" a number follows."""
_DONE = re.compile(rb"(?:\A|\n)data:\s*\[DONE\]")
"""The last event. A line's beginning is never inside of a text: its line breaks are escaped."""
EVENT_BYTES_MAX = 1024 * 1024
TAIL_BYTES = 4096


class EventRelay:
    """State of one stream of chat or completion chunks. Times are trace microseconds, 0 before they
    happened. With `keep_usage` the event of usage alone is read and not passed on."""

    __slots__ = ("_keep_usage", "_partial", "_tail", "error", "first_us", "last_us", "oversize")

    event_bytes_max = EVENT_BYTES_MAX

    def __init__(self, *, keep_usage: bool = False) -> None:
        self._keep_usage = keep_usage
        self._partial = b""
        self._tail = b""
        self.error = False
        self.oversize = False
        self.first_us = 0
        self.last_us = 0

    def feed(self, data: bytes, now_us: int) -> bytes:
        """The whole events so far; a half one is kept until its end arrives."""
        if self._partial:
            data = self._partial + data
        cut = data.rfind(b"\n\n") + 2
        if cut < 2:
            cut = data.rfind(b"\r\n\r\n") + 4
            if cut < 4:
                self._partial = data
                self.oversize = len(data) > self.event_bytes_max
                return b""
        if cut != len(data):
            self._partial, data = data[cut:], data[:cut]
        else:
            self._partial = b""
        self.last_us = now_us
        return self._pass(data, now_us)

    def _pass(self, data: bytes, now_us: int) -> bytes:
        """Look at whole events; what of them goes on to the client."""
        if not self.first_us and any(has_text(e) for e in data.split(gap(data))):
            self.first_us = now_us
        # `find`, for `in` takes half as long again on bytes; this runs for every chunk.
        if data.find(b'"error"') >= 0 and _ERROR.search(data):
            self.error = True
        self._tail = data if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        if self._keep_usage and data.find(b'"usage"') >= 0:
            return without_usage_event(data)
        return data

    def rest(self) -> bytes:
        """What came after the last whole event: some engines leave out the last blank line."""
        return without_usage_event(self._partial) if self._keep_usage else self._partial

    @property
    def done(self) -> bool:
        """The stream's last event was seen."""
        return bool(_DONE.search(self._tail) or _DONE.search(self._partial))

    @property
    def sequence(self) -> int:
        """The number that a further event would bear, where events are numbered."""
        return 0

    def usage(self) -> Usage | None:
        return usage_in(self._tail + self._partial)

    def itl_us(self, usage: Usage | None) -> int:
        """Mean microseconds between tokens; 0 where the engine did not count them.

        An event may carry several tokens, so events are not counted instead.
        """
        tokens = usage.completion_tokens if usage is not None else 0
        known = self.first_us and tokens > 1
        return (self.last_us - self.first_us) // (tokens - 1) if known else 0


def gap(data: bytes) -> bytes:
    """What parts the events of this stream."""
    return b"\n\n" if b"\n\n" in data else b"\r\n\r\n"
