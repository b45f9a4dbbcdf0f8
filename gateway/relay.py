"""An engine's answer on its way to a client: streamed as whole events, or kept whole. An edge.

In: heads and bytes from upstream, one attempt at a time. Out: bytes on the reply; what is wrong
with the answer, as `fault`, before or after it had `begun`. Never: decides whom to ask next, lets
half an event or an answer that is not one through.
"""

from gateway.events import EventRelay
from gateway.openai_api import Refusal, Usage
from gateway.reply import Reply, whereabouts, whereabouts_comment
from gateway.routes import Route
from gateway.routing import Lane
from gateway.telemetry import OutcomeKind

WHOLE_BYTES_MAX = 8 * 1024 * 1024
NO_EVENTS = EventRelay()  # of answers that are not streamed; never fed
_PLAIN = (b"", b"identity")


class Relay:
    """What has come of one attempt. `last_us` is when the engine was last heard."""

    __slots__ = (
        "_headers", "_held_us", "_lane", "_reply", "_route", "_rung", "_stream", "_whole",
        "_whole_bytes", "begun", "error_status", "events", "fault", "last_us",
    )  # fmt: skip

    def __init__(
        self,
        reply: Reply,
        route: Route,
        lane: Lane,
        rung: str,
        held_us: int,
        events: EventRelay | None,
    ) -> None:
        """`events` reads the answer where it is to be streamed."""
        self._reply = reply
        self._route = route
        self._lane = lane
        self._rung = rung
        self._held_us = held_us
        self._stream = events is not None
        self._headers: dict[bytes, bytes] = {}
        self._whole: list[bytes] = []
        self._whole_bytes = 0
        self.begun = False  # engine bytes are with the client
        self.events = NO_EVENTS if events is None else events
        self.error_status = 0
        self.fault = ""
        self.last_us = 0

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """An answer is a 200 or an error, in no encoding that nobody asked for."""
        self._headers = headers
        encoding = headers.get(b"content-encoding", b"").lower()
        if encoding not in _PLAIN:
            self.fault = f"the engine encoded its answer as {encoding.decode('latin-1')[:40]}"
        elif 400 <= status < 600:
            self.error_status = status
        elif status != 200:
            self.fault = f"the engine answered {status}, which is no answer"

    def data(self, data: bytes, now_us: int) -> None:
        """Pass on what can be passed on; `fault` says if nothing more should come."""
        if self.fault:
            return
        self.last_us = now_us
        if self.error_status or not self._stream:
            self._keep(data)
            return
        events = self.events.feed(data, now_us)
        if self.events.oversize:
            self.fault = "the engine sent an event of over a megabyte"
        elif events:
            self._open()
            self._reply.chunk(events)

    def conclude(self) -> None:
        """The engine has ended: `fault` if that was no good end of an answer."""
        events = self.events
        if self.fault or self.error_status or not self._stream:
            return
        if not self.begun:
            self.fault = "the stream ended before its first event"
        elif not events.done and (self._lane.spec.managed or events.rest()):
            self.fault = "the stream ended before its last event"

    @property
    def whole(self) -> bool:
        """All of a stream is with the client, its last event too."""
        return self._stream and self.begun and self.events.done and not self.events.rest()

    def told(self) -> tuple[OutcomeKind, Usage | None]:
        """How a whole stream ended: one that told of an error itself was cut."""
        cut = self.events.error
        return OutcomeKind.CUT if cut else OutcomeKind.ANSWERED, self.events.usage()

    def finish(self) -> tuple[OutcomeKind, Usage | None]:
        """End the reply of a good answer."""
        if self._stream:
            rest = self.events.rest()
            if rest:
                self._reply.chunk(rest + b"\n\n")
            self._reply.finish()
            return self.told()
        body = b"".join(self._whole)
        if self.begun:
            self._reply.finish()
        else:
            where = whereabouts(self._lane, self._rung, self._held_us)
            self._reply.whole(200, body, where, self._content_type())
        return OutcomeKind.ANSWERED, self._route.dialect.usage_in(body)

    def lacks_route(self) -> str:
        """What a server said that does not have the route it was asked for; else nothing. A 404
        that speaks of models is about the model."""
        said = b"".join(self._whole)[:300].decode("utf-8", "replace")
        gone = self.error_status in (405, 501) or (
            self.error_status == 404 and "model" not in said.lower()
        )
        return f"{self.error_status}: {said}" if self._route.extra and gone else ""

    def pass_error_on(self) -> None:
        """The engine's own error, in its own words unless they are too many."""
        status, body = self.error_status, b"".join(self._whole)
        if self._whole_bytes > WHOLE_BYTES_MAX:
            told = f"the engine answered {status} with over {WHOLE_BYTES_MAX} bytes"
            body = self._route.dialect.error_body(Refusal.ENGINE_FAILED, told)
        if self._reply.committed:
            message = f"the engine answered {status}: {body[:300].decode('utf-8', 'replace')}"
            self._reply.end_with_error(Refusal.ENGINE_FAILED, message)
            return
        retry_after = self._headers.get(b"retry-after")
        headers = b"" if retry_after is None else b"retry-after: %b\r\n" % retry_after
        self._reply.whole(status, body, headers, self._content_type())

    def _open(self) -> None:
        if self.begun:
            return
        self.begun = True
        if self._reply.committed:
            note = whereabouts_comment(self._lane, self._rung, self._held_us)
            self._reply.chunk(note)
        else:
            self._reply.commit(whereabouts(self._lane, self._rung, self._held_us))

    def _keep(self, data: bytes) -> None:
        """What is not streamed goes out in one write, so that a broken answer can go elsewhere.

        Too large to keep, it goes out in pieces from there on; an error that large is dropped.
        """
        if self.begun:
            self._reply.chunk(data)
            return
        self._whole_bytes += len(data)
        if self._whole_bytes <= WHOLE_BYTES_MAX:
            self._whole.append(data)
        elif not self.error_status:
            self._open()
            self._reply.chunk(b"".join((*self._whole, data)))
            self._whole.clear()

    def _content_type(self) -> bytes:
        return self._headers.get(b"content-type", b"application/json")
