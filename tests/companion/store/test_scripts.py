"""What was forgotten is recognised in any script, by the worker and by the database alike."""

from __future__ import annotations

import json
import sys
import unicodedata
from datetime import UTC, datetime

import pytest

from companion.store import Store, Thing, Turn, mentions, words_of
from companion.store.forgetting import word_hashes
from companion.store.word_stems import plain_text
from tests.real.supabase.postgres import connection

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# A thing, a text that mentions it, and one that has the same letters without their marks, or parts of the word.
SAID = {
    "hindi": ("शतरंज", "कल मैंने शतरंज खेला।", "रंजन आज आया था"),
    "hindi, short": ("कुल", "कुल।", "कल आना"),
    "bengali": ("দাবা", "আমি দাবা খেলি।", "দব বলা হলো"),
    "tamil": ("சதுரங்கம்", "நான் சதுரங்கம் ஆடுவேன்", "சத ரங கம"),
    "malayalam": ("ചെസ്സ്", "എനിക്ക് ചെസ്സ് ഇഷ്ടമാണ്", "ചസസ വേണം"),
    "persian": ("می‌خواهم", "من میخواهم بروم", "می و خواهر"),
    "hebrew": ("שַׁחְמָט", "אני אוהב שחמט.", "שח עם מט"),
    "thai": ("หมากรุก", "เมื่อวานฉันเล่นหมากรุกกับพี่", "ฉันกินหมากกับพี่"),
    "lao": ("ໝາກຮຸກ", "ຂ້ອຍມັກຫຼິ້ນໝາກຮຸກ", "ຂ້ອຍກິນໝາກ"),
    "khmer": ("អុក", "ខ្ញុំលេងអុកជាមួយគាត់", "ខ្ញុំអាន"),
    "burmese": ("စစ်တုရင်", "ကျွန်တော်စစ်တုရင်ကစားတယ်", "စစ်သား"),
    "chinese": ("下棋", "昨天我下棋了。", "昨天下雨了"),
    "japanese": ("将棋", "昨日、将棋をした", "将来の夢"),
    "japanese, kana": ("チェス", "きのうﾁｪｽをした", "チーズ"),
    "korean": ("체스를", "나는 체스를 좋아해", "치즈를 먹어"),
    "beyond the first plane": ("𠮷野家", "昨日は𠮷野家で食べた", "吉野家"),
    "emoji": ("chess", "♟️chess!", "♟️che ss"),
}


@pytest.mark.parametrize("script", SAID)
async def test_a_thing_is_found_in_its_script(store: Store, user: str, script: str) -> None:
    thing, said, other = SAID[script]
    for text in (said, other):
        await store.add_turn(user, Turn("user", text, NOON, "c"))
    await store.forget(user, [Thing(thing, words_of(thing))])
    assert [(turn.text, turn.skipped) for turn in (await store.context(user)).turns] == [(said, True), (other, False)]
    forgotten = await store.forgotten(user)
    assert (forgotten.mentioned_in(said), forgotten.mentioned_in(other)) == (True, False), "by its hashes"


async def test_database_and_worker_see_the_same_words(project: str, user: str) -> None:
    every = [chr(code) for code in range(1, sys.maxunicode + 1)]
    marks = [
        char for char in every if unicodedata.category(char)[0] == "M" and unicodedata.normalize("NFKD", char) == char
    ]
    texts = [f"x{mark}y {mark}" for mark in marks] + [text for row in SAID.values() for text in row]
    texts += [
        "a\u00adb c\u2060d, ½ [x] {y} ^z` _u_ a\\b x\ty\x1fz\x85\u2028q",
        "１２：３［ａ］",
        "“so”—and…‘so’ «x» ¿y?",
        "I'm C++",
    ]
    async with connection(project) as db:
        plain = await db.fetchval(
            "select json_agg(public.companion_plain(t) order by n)"
            " from json_array_elements_text($1::json) with ordinality e (t, n)",
            json.dumps(texts),
        )
        assert [text.split() for text in json.loads(plain)] == [plain_text(text).split() for text in texts]
        for thing, *said in SAID.values():
            words = words_of(thing)
            await db.execute(
                "insert into public.companion_forgotten (user_id, key, words)"
                " values ($1, 'salt$' || $2, $3::text::jsonb)",
                f"{user}-{thing}",
                thing,
                json.dumps(word_hashes("salt", words)),
            )
            for text in said:
                found = await db.fetchrow(
                    "select public.companion_mentions($1, $2), public.companion_mentions_forgotten($1, $3)",
                    text,
                    json.dumps(words),
                    f"{user}-{thing}",
                )
                assert tuple(found) == (mentions(text, words),) * 2, (thing, text)
    apart = [mark for mark in marks if " " in plain_text(f"x{mark}y")]
    assert apart == [], "a combining mark is part of its word"
