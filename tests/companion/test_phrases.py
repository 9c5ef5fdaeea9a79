"""The phrases that everybody hears hold nothing that only one person may hear."""

from __future__ import annotations

import pytest

from companion import phrases
from companion.speech.shareable import is_shareable

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "nl", "pt", "pt-BR", "EN-gb"])
def test_each_language_has_both(language: str) -> None:
    assert phrases.phrases(language) == [phrases.first_meeting(language), phrases.dropped_call(language)]
    assert len(set(phrases.phrases(language))) == 2
    assert all(is_shareable(phrase) for phrase in phrases.phrases(language))


def test_in_another_language_the_model_greets() -> None:
    assert phrases.first_meeting("ja") == phrases.dropped_call("ja") == ""
    assert phrases.phrases("ja") == []


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "nl", "pt", "pt-BR", "ja"])
def test_a_goodbye_is_known_by_its_words(language: str) -> None:
    assert phrases.is_goodbye(phrases.goodbye(language))
    assert not phrases.is_goodbye(f"{phrases.goodbye(language)} Or stay.")
    assert phrases.goodbye(language) not in phrases.phrases(language), "it is not said first"


FAREWELLS = ("Goodbye.", "ok bye", "Thanks, see you tomorrow!", "I must go, bye", "Bye, it was nice to talk", "k bye")
ELSEWHERE = ("Tschüss!", "Danke, auf Wiedersehen", "Adiós", "Merci, au revoir", "Ciao", "Tot ziens!", "Até logo.")


@pytest.mark.parametrize("said", FAREWELLS + ELSEWHERE)
def test_a_farewell_is_known(said: str) -> None:
    assert phrases.is_farewell(said)


MENTIONS = ("", "...", "I said goodbye to my cat", "How do you say bye in French?", "Take care of my dog.")


@pytest.mark.parametrize("said", MENTIONS)
def test_what_mentions_one_is_none(said: str) -> None:
    assert not phrases.is_farewell(said)
