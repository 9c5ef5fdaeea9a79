"""What the companion says first to everybody, word for word: so that it is spoken once, and heard at once.

The phrases hold nothing of a person, and stand for what the prompts of a greeting ask for (``prompts.FIRST_MEETING``,
``prompts.after_dropped_call``). In another language, the model greets.
"""

from __future__ import annotations

import re
from typing import Final

_FIRST_MEETING: Final = {
    "de": "Hallo! Ich bin dein Companion, und ich erinnere mich an die Menschen, mit denen ich spreche. Wie heißt du?",
    "en": "Hello! I am your companion, and I remember the people I talk to. What is your name?",
    "es": "¡Hola! Soy tu compañero de voz y recuerdo a las personas con las que hablo. ¿Cómo te llamas?",
    "fr": "Bonjour ! Je suis votre compagnon, et je me souviens de ceux avec qui je parle. Comment vous appelez-vous ?",
    "it": "Ciao! Sono il tuo compagno di voce e mi ricordo delle persone con cui parlo. Come ti chiami?",
    "nl": "Hallo! Ik ben je companion, en ik onthoud de mensen met wie ik praat. Hoe heet je?",
    "pt": "Olá! Sou o seu companheiro de voz e lembro-me das pessoas com quem falo. Como se chama?",
}
_DROPPED_CALL: Final = {
    "de": "Da sind wir wieder. Wo waren wir?",
    "en": "There we are again. Where were we?",
    "es": "Aquí estamos otra vez. ¿Por dónde íbamos?",
    "fr": "Nous revoilà. Où en étions-nous ?",
    "it": "Eccoci di nuovo. Dove eravamo rimasti?",
    "nl": "Daar zijn we weer. Waar waren we?",
    "pt": "Cá estamos outra vez. Onde é que íamos?",
}
_GOODBYE: Final = {
    "de": "Auf Wiedersehen, bis zum nächsten Mal.",
    "en": "Goodbye, until next time.",
    "es": "Adiós, hasta la próxima.",
    "fr": "Au revoir, à la prochaine.",
    "it": "Arrivederci, alla prossima.",
    "nl": "Tot ziens, tot de volgende keer.",
    "pt": "Adeus, até à próxima.",
}


_FAREWELLS: Final = {
    "de": "tschüss|tschüs|tschau|auf wieder(?:sehen|hören|schauen)|gute nacht|bis (?:bald|dann|morgen|später)",
    "en": "bye|goodbye|good bye|good night|see you|farewell|take care(?! of)",
    "es": "adi[óo]s|hasta (?:luego|pronto|mañana)|chao",
    "fr": "au revoir|à (?:bientôt|demain)|bonne nuit",
    "it": "ciao|arrivederci|a (?:presto|domani)|buona ?notte",
    "nl": "tot (?:ziens|morgen|straks|de volgende keer)|doei",
    "pt": "adeus|tchau|até (?:à próxima|logo|amanhã|breve)",
}
_BEFORE: Final = "ok|okay|k|so|well|thanks|thank you|thx|danke|gut|gracias|bueno|merci|bon|grazie|obrigad[oa]|bedankt"
_FAREWELL: Final = re.compile(rf"(?:(?:{_BEFORE}) )*(?:{'|'.join(_FAREWELLS.values())})(?: \S+){{0,3}}")
"""A clause with which a person says goodbye, in lower case and without punctuation."""


def first_meeting(language: str) -> str:
    """What is said to a person of whom nothing is known; empty where there is no phrase in the language."""
    return _FIRST_MEETING.get(_base(language), "")


def dropped_call(language: str) -> str:
    """What is said to a person who was cut off moments ago; empty where there is no phrase in the language."""
    return _DROPPED_CALL.get(_base(language), "")


def goodbye(language: str) -> str:
    """What is said to a person who leaves; in English where there is no phrase in the language."""
    return _GOODBYE.get(_base(language), _GOODBYE["en"])


def is_goodbye(text: str) -> bool:
    """Whether a text is :func:`goodbye`, in whatever language."""
    return text in _GOODBYE.values()


def is_farewell(said: str) -> bool:
    """Whether a person says goodbye, at the beginning or the end of what they say, in a language that has phrases."""
    clauses = [" ".join(clause.split()) for clause in re.split(r"[^\w\s'’-]+", said.lower()) if clause.strip()]
    return any(_FAREWELL.fullmatch(clause) for clause in (*clauses[:1], *clauses[-1:]))


def phrases(language: str) -> list[str]:
    """What is said first in a language."""
    return [phrase for phrase in (first_meeting(language), dropped_call(language)) if phrase]


def _base(language: str) -> str:
    """The language without its region: ``pt`` for ``pt-BR``."""
    return language.partition("-")[0].lower()
