"""A request in a further dialect, answered as a chat: what the engine writes goes out translated. ✎

In: a `Request` as it came and its `Translation`. Out: the same request as the engine's chat route
wants it; answers, events and errors in the client's dialect. Never: decides what an engine can do.
"""

import msgspec

from placement.engines.asgi import Request
from placement.engines.dialects.chat import Translation, error_of
from placement.engines.dialects.messages import MessagesTranslation
from placement.engines.dialects.reading import UnfitError
from placement.engines.dialects.responses import ResponsesTranslation

CHAT = "/v1/chat/completions"
TRANSLATED: dict[str, type[MessagesTranslation | ResponsesTranslation]] = {
    "/v1/messages": MessagesTranslation,
    "/v1/responses": ResponsesTranslation,
}


class TranslatedRequest(Request):
    """Looks like a request for a chat."""

    __slots__ = ("_asked", "_translation")

    def __init__(self, asked: Request, translation: Translation) -> None:
        self._asked = asked
        self._translation = translation
        self.method, self.path, self.query = asked.method, CHAT, asked.query
        self.headers, self.connection = asked.headers, asked.connection
        self.body = translation.body()

    async def reply(
        self, status: int, body: bytes, content_type: bytes = b"application/json"
    ) -> None:
        if status == 200:
            told = msgspec.json.encode(self._translation.whole(msgspec.json.decode(body)))
        else:
            told = self._translation.error_body(status, *error_of(body))
        await self._asked.reply(status, told, content_type)

    async def begin_events(self) -> None:
        await self._asked.begin_events()

    async def write(self, chunk: bytes, more: bool = True) -> None:
        told = self._translation.events(chunk)
        if told or not more:
            await self._asked.write(told, more)

    def half_write(self, chunk: bytes) -> None:
        self._asked.half_write(self._translation.events(chunk))


async def translate(request: Request) -> Request | None:
    """The request as a chat; as it is where its route needs no translation; None if it was
    refused."""
    kind = TRANSLATED.get(request.path)
    if kind is None:
        return request
    try:
        return TranslatedRequest(request, kind(request.body))
    except UnfitError as error:
        await request.reply(400, kind.error_body(400, error.message, error.param))
        return None
