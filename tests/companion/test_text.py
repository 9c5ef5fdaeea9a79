"""Text that every database, client and log file takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from companion.store import Memory, Summary, Turn
from companion.text import storable, storable_json
from companion.voice.storable_chat import storable_arguments

pytestmark = pytest.mark.unit
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("Zażółć 😀\u2028\ufeff\t", "Zażółć 😀\u2028\ufeff\t"),
        ("a\x00b", "a\ufffdb"),
        ("Ada \ud83d", "Ada \ufffd"),
        ("\ude00 Ada", "\ufffd Ada"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
    ],
)
def test_half_characters_are_marked_and_whole_ones_kept(text: str, kept: str) -> None:
    assert storable(text) == kept
    kept.encode()
    assert storable(kept) == kept
    assert storable_json({text: [text, {"x": (text, 1, None)}]}) == {kept: [kept, {"x": [kept, 1, None]}]}
    assert Turn("user", text, NOW, text, id=text) == Turn("user", kept, NOW, kept, id=kept)
    assert Memory(text, NOW, id=text) == Memory(kept, NOW, id=kept)
    assert Summary(text, text, NOW) == Summary(kept, kept, NOW)


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError):
        storable_json({1: "x"})


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"fact": "likes \\u00e9"}', '{"fact": "likes \\u00e9"}'),  # nothing to mend: as the model wrote it
        ('{"fact": "half \\ud83d"}', '{"fact": "half \ufffd"}'),
        ('{"fact": "half \ud83d"}', '{"fact": "half \ufffd"}'),
        ('{"fact": "nul \\u0000"}', '{"fact": "nul \ufffd"}'),
        ('{"fact": "\\ud83d\\ude00"}', '{"fact": "\\ud83d\\ude00"}'),
        ('{"fact": "cut \\ud83', '{"fact": "cut \\ud83'),
        ("[" * 100_000 + "\\u0000", "[" * 100_000 + "\\u0000"),
    ],
)
def test_arguments_of_a_tool_lose_only_half_characters(arguments: Any, kept: str) -> None:
    assert storable_arguments(arguments) == kept
