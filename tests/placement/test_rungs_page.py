"""The page about rungs says what the edge table says."""

from pathlib import Path

from placement.edges.table import page

PAGE = Path(__file__).parents[2] / "docs" / "rungs.md"


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text("utf-8") == page(), "the edge table has changed: run `make rungs`"
