"""Languages of speech: the code of what a person, a program or a profile calls one."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = {
    "ar": "arabic العربية",
    "bg": "bulgarian български",
    "ca": "catalan català",
    "cs": "czech čeština",
    "da": "danish dansk",
    "de": "german deutsch allemand alemán tedesco duits alemão",
    "el": "greek ελληνικά",
    "en": "english englisch anglais inglés inglese engels inglês",
    "es": "spanish español spanisch espagnol spagnolo spaans espanhol castellano",
    "et": "estonian eesti",
    "fa": "persian farsi فارسی",
    "fi": "finnish suomi",
    "fr": "french français französisch francés francese frans francês",
    "he": "hebrew עברית",
    "hi": "hindi हिन्दी",
    "hr": "croatian hrvatski",
    "hu": "hungarian magyar",
    "id": "indonesian",
    "it": "italian italiano italienisch italien italiaans",
    "ja": "japanese 日本語",
    "ko": "korean 한국어",
    "lt": "lithuanian lietuvių",
    "lv": "latvian latviešu",
    "nl": "dutch nederlands niederländisch néerlandais neerlandés olandese holandês",
    "no": "norwegian norsk",
    "pl": "polish polski",
    "pt": "portuguese português portugiesisch portugais portugués portoghese portugees",
    "ro": "romanian română",
    "ru": "russian русский",
    "sk": "slovak slovenčina",
    "sl": "slovenian slovenščina",
    "sr": "serbian српски",
    "sv": "swedish svenska",
    "th": "thai ไทย",
    "tr": "turkish türkçe",
    "uk": "ukrainian українська",
    "vi": "vietnamese",
    "zh": "chinese mandarin 中文",
}
_CODES: Final = {name: code for code, names in _NAMES.items() for name in (code, *names.split())}
_CODE: Final = re.compile(r"([a-z]{2,8})(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|[0-9]{3}))?", re.IGNORECASE | re.ASCII)
_LINE: Final = re.compile(
    r"(?im)^[ \t]*(?:[-*][ \t]*)?(?:(?:preferred|spoken)[ \t]+)?(?:language|sprache|langue|idioma|lingua|taal|língua)"
    r"[ \t]*:[ \t]*([^,;(/\n]+)"
)


def language_code(text: str) -> str:
    """The code of a language by its code or name, such as ``de`` or ``pt-BR``; empty where it is none."""
    if known := _CODES.get(text.strip().lower()):
        return known
    found = _CODE.fullmatch(text.strip())
    if found is None:
        return ""
    language, script, region = found.groups(default="")
    return "-".join(filter(None, (language.lower(), script.capitalize(), region.upper())))


def language_in(profile: str) -> str:
    """The code of the language that a profile has a line about (``Language: German``); empty without such a line."""
    for found in reversed(list(_LINE.finditer(profile))):
        code = language_code(found[1].strip().rstrip("."))
        if code.partition("-")[0] in _NAMES:
            return code
    return ""
