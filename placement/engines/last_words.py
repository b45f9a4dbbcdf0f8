"""Why an engine ended, from the end of its log.

In: the last part of a log. Out: one or two lines for people. Never: reads a file.

A server of several processes logs one error many times over, each process wrapping the last, and
ends with a sentence that says only that something else went wrong. The cause is the last error
before that.
"""

import re

CHARS_MAX = 400

_PREFIX = re.compile(
    r"^(\([\w-]+ pid=\d+\) )?(ERROR|CRITICAL|WARNING|INFO) [\d-]+ [\d:]+ \[[^]]*\] "
)
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt|Exit)\b: |[\w.-]+: error: ).+")
_SAYS_NOTHING = re.compile(r"See root cause above|resource_tracker|leaked")


def last_words(log: str) -> str:
    """The last error that says something, with the line that explains it; else the last lines."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    for i in range(len(lines) - 1, -1, -1):
        if _ERROR.match(lines[i]) and not _SAYS_NOTHING.search(lines[i]):
            return _short(" ".join([lines[i], *_detail(lines[i + 1 : i + 2])]))
    return _short(" / ".join(lines[-2:])) or "it said nothing"


def _detail(following: list[str]) -> list[str]:
    """Validation errors say in their second line what they are about."""
    return [line for line in following if line.startswith(("Value error", "Input should"))]


def _short(text: str) -> str:
    return text if len(text) <= CHARS_MAX else text[: CHARS_MAX - 1] + "…"
