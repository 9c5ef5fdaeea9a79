"""The pictures are those of their figures, and the text has the same figures."""

from __future__ import annotations

import html
import json
import re

import pytest

from benchmarks.first_sound.picture import FIGURES, PICTURE, draw, title
from tests.documentation.pages import ROOT, text_of

pytestmark = pytest.mark.unit
MEASURED = json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_picture_is_drawn_from_the_figures() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(MEASURED), "python -m benchmarks.first_sound.picture"


def test_the_table_has_the_figures_of_the_picture() -> None:
    table = text_of(ROOT / "docs" / "performance.md").partition("## The first sound")[2].partition("\n## ")[0]
    for row in MEASURED["rows"]:
        expected = f"| {row['name']} | {row['median_ms']:,} ms [{row['least_ms']:,} {row['greatest_ms']:,}] |"
        assert expected in table


def test_no_model_and_no_voice_is_asked_before_the_first_sound_of_the_companion() -> None:
    ours = [row for row in MEASURED["rows"] if not re.match("floor|stock agent", row["name"])]
    assert len(ours) == 6
    assert [row["name"] for row in ours if row["model_calls"] or row["voice_calls"]] == []
    assert "the usual way" in title(MEASURED)


def test_the_recorded_terminal_shows_a_caller_who_comes_back() -> None:
    """What was recorded in a real run, as text: rows of an SVG, with hard spaces."""
    svg = (ROOT / "docs" / "pictures" / "console.svg").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", svg)).replace("\xa0", " ")
    first, second = shown.split("$ make console")[1:]
    assert "my name is Ada" in first
    assert "Ada" in second.partition("❯")[0], "the second greeting has the name: make pictures"
