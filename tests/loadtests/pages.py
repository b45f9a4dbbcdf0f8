"""An HTML report as a browser takes it."""

import re
from html.parser import HTMLParser


class Parsed(HTMLParser):
    """Tags, the rows of lost cells, and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.lost = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.lost += tag == "tr" and named.get("class") == "lost"
        sources = [named.get(key) or "" for key in ("src", "href", "xlink:href")]
        self.fetched += [one for one in sources if one and not one.startswith(("#", "data:"))]

    def check_whole(self) -> None:
        """Nothing is fetched, by any way."""
        assert self.fetched == []
        assert not {"script", "link", "iframe"} & set(self.tags)
        assert "@import" not in self.text
        assert not re.findall(r"url\((?!#)", self.text)
