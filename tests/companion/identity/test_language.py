"""The language of a person: what metadata, a profile and an environment may call it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from companion.identity import language_code, language_from_metadata, language_in
from companion.settings import Settings
from companion.writes.records import from_line, to_line
from companion.writes.relationship import ConversationEnded, count_conversation

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("de", "de"),
        (" DE ", "de"),
        ("pt-br", "pt-BR"),
        ("pt_BR", "pt-BR"),
        ("zh-hans-cn", "zh-Hans-CN"),
        ("es-419", "es-419"),
        ("multi", "multi"),  # as some models that listen call any language
        ("German", "de"),
        ("deutsch", "de"),
        ("Français", "fr"),
        ("日本語", "ja"),
        *(
            (text, "")
            for text in ("", "d", "42", "-1", "d3", "German please", "../de", "de-", "дe", "de\u200b", "a" * 9)
        ),
    ],
)
def test_a_language_has_one_code(text: str, code: str) -> None:
    assert language_code(text) == code
    if code:
        assert Settings.from_env({"COMPANION_LANGUAGE": text}).language == code


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        ("", ""),
        ("Name: Ada\nLanguage: de\nLikes: chess", "de"),
        ("- Preferred language: German (native), English", "de"),
        ("language : pt-BR.", "pt-BR"),
        ("Sprache: Deutsch", "de"),
        ("Language: German\nLanguage: French", "fr"),
        ("Language: Klingon", ""),
        ("Language: German\nLanguage: Klingon", "de"),
        ("Wants to learn the language: Spanish", ""),
        ("Languages: German, English", ""),
        ("Programming language: Python", ""),
        ("Language: wants to learn Spanish", ""),
        ("Language:", ""),
    ],
)
def test_a_profile_may_have_a_line_about_it(profile: str, code: str) -> None:
    assert language_in(profile) == code


@pytest.mark.parametrize(
    ("metadata", "code", "warns"),
    [
        ({"user_id": "1", "language": "de"}, "de", False),
        ({"language": "pt_br"}, "pt-BR", False),
        ({"user_id": "1"}, "", False),
        ({"language": None}, "", False),
        ({"language": ""}, "", False),
        ({"language": 42}, "", True),
        ({"language": ["de"]}, "", True),
        ({"language": "the user's own"}, "", True),
        ({"language": "x" * 100_000}, "", True),
        ("no JSON", "", False),
        ([{"language": "de"}], "", False),
        (None, "", False),
    ],
)
def test_metadata_may_name_it(metadata: object, code: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    text = metadata if isinstance(metadata, str) or metadata is None else json.dumps(metadata)
    assert language_from_metadata(text) == code
    assert bool(caplog.records) == warns
    assert "own" not in caplog.text


def test_a_counted_conversation_keeps_it() -> None:
    ended = ConversationEnded("c1", datetime.now(UTC), language="de")
    assert from_line(to_line("ada", ended)) == ("ada", ended)
    state = count_conversation({"conversations": 1, "mood": "good"}, ended)
    assert (state["language"], state["mood"]) == ("de", "good")
    later = count_conversation(state, ConversationEnded("c2", datetime.now(UTC)))
    assert later["language"] == "de"
    assert '"language"' not in to_line("ada", ConversationEnded("c3", datetime.now(UTC))), "earlier versions read it"
