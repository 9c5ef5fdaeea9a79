"""Which words are of time: a greeting that is prepared holds none, because it is heard at an unknown moment.

The lists hold what greetings say, not all words of a language. A greeting with a word of any of the lists is not kept,
whatever language it is in, so a word that is innocent in another of the languages is left out, or named below.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Without accents, which are removed before a text is looked at. A star stands for any ending.
_WORDS: Final = {
    "en": """
        today tonight tomorrow yesterday morning* afternoon* evening* night* overnight noon midday midnight dawn dusk
        day days daily week* weekend* month* year* hour* minute* moment* instant fortnight o'clock ago recent* lately
        earlier sooner meanwhile nowadays while monday* tuesday* wednesday* thursday* friday* saturday* sunday*
        january february april june july august september october november december spring summer autumn winter
        christmas easter birthday* anniversar* holiday* season* long since
    """,
    "de": """
        heute gestern vorgestern morgen morgens abend* nacht nachts mittag* vormittag* nachmittag* tag tage tagen
        woche* wochenende* monat* jahr* stunde* minute* sekunde* montag* dienstag* mittwoch* donnerstag* freitag*
        samstag* sonntag* januar februar marz juni juli oktober dezember fruhling* sommer* herbst* weihnacht* ostern
        geburtstag* neulich kurzlich vorhin gerade eben jungst lange seit
    """,
    "fr": """
        aujourd'hui demain matin* soir* bonsoir nuit* midi minuit jour jours journee* semaine* annee* heure* lundi
        mardi mercredi jeudi vendredi samedi dimanche janvier fevrier avril juin juillet aout septembre octobre
        novembre decembre printemps hiver automne paques anniversaire recemment longtemps tantot depuis
    """,
    "es": """
        hoy ayer manana* tarde tardes noche* dia dias mediodia semana* meses ano anos hora horas minuto* lunes martes
        miercoles jueves viernes sabado domingo enero febrero abril junio julio septiembre octubre noviembre diciembre
        primavera verano invierno otono navidad* cumpleanos recientemente anoche hace
    """,
    "it": """
        oggi ieri domani mattin* pomeriggio stasera buonasera buongiorno buonanotte notte giorno giorni settimana*
        mese anno anni minuti lunedi martedi mercoledi giovedi venerdi gennaio febbraio aprile giugno luglio settembre
        ottobre dicembre estate inverno autunno pasqua compleanno recentemente poco
    """,
    "nl": """
        vandaag gisteren ochtend* middag* avond* dag dagen week weken weekend maand* jaar jaren uur uren minuut
        minuten maandag dinsdag woensdag donderdag vrijdag zaterdag zondag januari februari maart mei juni juli
        augustus lente zomer* winter herfst kerst* pasen verjaardag* onlangs daarnet zojuist lang
    """,
    "pt": """
        hoje ontem amanha manha* noite* semana* horas segunda-feira terca-feira quarta-feira quinta-feira sexta-feira
        setembro outubro dezembro janeiro fevereiro marco verao outono natal aniversario recentemente
    """,
}
_INNOCENT: Final = {"hier": {"de", "nl"}, "sera": {"fr", "es", "pt"}, "mes": {"fr"}, "ora": {"pt"}}
"""Words of time that mean something else in other languages: those languages."""
_PHRASES: Final = re.compile(
    r"\bjust (?:now|said|told|spoke|talked|talking|saying|telling|left|hung|were|was)\b|\bthis time\b|\bby now\b"
)
_MONTHS: Final = re.compile(r"\b(?:May|March)\b")  # as written: in small letters they are other words
_WORD: Final = re.compile(
    r"(?<!\w)(?:"
    + "|".join(re.escape(word).replace(r"\*", r"\w*") for words in _WORDS.values() for word in words.split())
    + r")(?!\w)"
)


def may_be_kept(text: str, language: str) -> bool:
    """Whether a greeting holds no word of time and no digit, as far as can be told.

    Args:
        text: the greeting.
        language: the code of the language that was asked for. Of one without a list, and of a text in another script
            than the Latin one, nothing can be told.
    """
    code = language.split("-")[0].lower()
    if code not in _WORDS or any(letter.isnumeric() for letter in text) or not _is_latin(text):
        return False
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    small = plain.lower().replace("\u2019", "'")
    others = (word for word, innocent in _INNOCENT.items() if code not in innocent)
    return not (
        _WORD.search(small)
        or _PHRASES.search(small)
        or _MONTHS.search(plain)
        or any(re.search(rf"(?<!\w){word}(?!\w)", small) for word in others)
    )


def _is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(one, "") for one in text if one.isalpha())
