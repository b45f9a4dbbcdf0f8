"""The dialects of the routes: how errors are told, streams are read, tokens are counted. Pure.

In: refusals, whole answers. Out: error documents and error events, a reader of a stream's events,
usage. `Dialect` is OpenAI's chat, and what its other routes have in common with it; the modules
`responses_api` and `messages_api` say where theirs differ. Never: keeps state.
"""

from gateway.events import EventRelay
from gateway.openai_api import Refusal, Usage, error_body, usage_in


class Dialect:
    """OpenAI's chat and completions."""

    def error_body(
        self,
        kind: Refusal,
        message: str,
        param: str | None = None,
        request_id: bytes = b"",  # noqa: ARG002  for dialects that say it in the body
    ) -> bytes:
        """The document of an error."""
        return error_body(kind, message, param)

    def error_event(
        self,
        kind: Refusal,
        message: str,
        request_id: bytes = b"",
        sequence: int = 0,  # noqa: ARG002  for dialects that number their events
    ) -> bytes:
        """The same as the last event of a stream that had begun."""
        return b"data: " + self.error_body(kind, message, None, request_id) + b"\n\n"

    def events(self, *, keep_usage: bool) -> EventRelay:
        """A reader for one stream."""
        return EventRelay(keep_usage=keep_usage)

    def usage_in(self, answer: bytes) -> Usage | None:
        """Token usage of an answer that was not streamed."""
        return usage_in(answer)


OPENAI = Dialect()
