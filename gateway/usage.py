"""Usage of streams that nobody asked for: asked of the engine, kept from the client. Pure.

In: a request's body, then the events of its answer, as bytes. Out: the same bytes with
`stream_options.include_usage` set; the same events without the one that tells of usage alone.
Never: decodes a body or an event that it leaves as it is.
"""

import re

import msgspec

from gateway.openai_api import Field, data_of

_ASKED = b',"stream_options":{"include_usage":true}}'
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_GAP = re.compile(rb"(\n\n|\r\n\r\n)")


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _UsageEvent(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage


_USAGE_EVENT = msgspec.json.Decoder(_UsageEvent)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def ask_for_usage(body: bytes, stream_options: Field) -> bytes | None:
    """The body of a stream with usage asked for; None where its client asked itself.

    `body` is a JSON object with at least one field, `stream_options` what it says of that. Most say
    nothing: then the question goes in before the last brace, and no other byte is touched.
    """
    if isinstance(stream_options, msgspec.UnsetType):
        return body.rstrip()[:-1] + _ASKED
    options = _options(stream_options)
    if options is None or bytes(options.get("include_usage", b"false")) not in (b"false", b"null"):
        return None  # asked for, or nothing that an engine would take
    fields = _OBJECT.decode(body)
    options["include_usage"] = msgspec.Raw(b"true")
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


def _options(given: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    if bytes(given) == b"null":
        return {}
    try:
        return _OBJECT.decode(given)
    except msgspec.ValidationError:
        return None


def without_usage_event(events: bytes) -> bytes:
    """Events but for those that carry usage and no choice, which most texts have none of."""
    if _NO_CHOICES.search(events) is None:
        return events
    parts = [*_GAP.split(events), b""]  # an event and its gap by turns; the last one may have none
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return b"".join(event + gap for event, gap in pairs if not _is_usage_event(event))


def _is_usage_event(event: bytes) -> bool:
    data = data_of(event)
    if data is None or b'"usage"' not in data:
        return False
    try:
        return not _USAGE_EVENT.decode(data).choices
    except (msgspec.ValidationError, msgspec.DecodeError):
        return False
