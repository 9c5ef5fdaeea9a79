"""What is kept of a speech comes back as long as it was, and nothing else is played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from livekit import rtc
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, TimedString

from companion.speech import recording as recording_module
from companion.speech.recording import Recording, UnusableRecording
from companion.speech.recordings import PhraseMemory
from companion.speech.shareable import MAX_CHARACTERS, KnownWords, is_shareable
from tests.companion.speech.toy_voice import frame_of

pytestmark = pytest.mark.unit


async def speech(*frames: rtc.AudioFrame) -> AsyncIterator[rtc.AudioFrame]:
    for frame in frames:
        yield frame


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
async def test_it_comes_back_as_long_as_it_was(rate: int, channels: int) -> None:
    made = await Recording.of(speech(frame_of(0.1003, rate, channels), frame_of(0.2, rate, channels)))
    back = Recording.unpack(made.pack())
    frames = [frame async for frame in back.play()]
    assert {(frame.sample_rate, frame.num_channels) for frame in frames} == {(rate, channels)}
    assert sum(frame.samples_per_channel for frame in frames) == made.samples == int(0.1003 * rate) + int(0.2 * rate)
    whole = rtc.combine_audio_frames(frames)
    assert max(whole.data) > 6_000  # the tone, and not silence


async def test_words_keep_their_times() -> None:
    frame = frame_of(0.1)
    frame.userdata[USERDATA_TIMED_TRANSCRIPT] = [TimedString("José ", 0.0, 0.05), TimedString("here")]
    back = Recording.unpack((await Recording.of(speech(frame))).pack())
    assert [str(word) for word in back.transcript] == ["José ", "here"]
    assert (back.transcript[0].start_time, back.transcript[0].end_time) == (0.0, 0.05)


async def test_any_changed_byte_is_noticed() -> None:
    raw = (await Recording.of(speech(frame_of(0.1)))).pack()
    for at in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(UnusableRecording):
            Recording.unpack(bytes(changed))
    for other in (raw[:-1], raw + b"x", b"", b"x" * 36, "text", None, 7):
        with pytest.raises(UnusableRecording):
            Recording.unpack(other)


async def test_silence_nothing_and_a_story_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = rtc.AudioFrame(bytes(4_800), 24_000, 1, 2_400)
    monkeypatch.setattr(recording_module, "MAX_SECONDS", 0.5)
    for frames in ([], [silent], [frame_of(0.3), frame_of(0.3)]):
        with pytest.raises(UnusableRecording):
            await Recording.of(speech(*frames))


async def test_the_memory_is_bounded_and_keeps_nothing_of_a_person() -> None:
    one = await Recording.of(speech(frame_of(0.1)))
    kept = PhraseMemory(3 * len(one.opus))
    for name in "abc":
        kept.put(f"speech:{name}", one)
    assert kept.get("speech:a") is one
    kept.put("speech:d", one)
    kept.put("user:1:speech:e", one)
    assert len(kept) == 3
    assert kept.get("speech:b") is None  # not played for longest
    assert kept.get("user:1:speech:e") is None


@pytest.mark.parametrize(
    ("text", "known", "shareable"),
    [
        ("One moment, please.", "Likes chess.", True),
        ("How is the CHESS going?", "Likes chess.", False),
        ("Schön, Ｊosé!", "José", False),
        ("Bis gleich, Zoe!", "Zoë", False),
        ("Good to hear you, Bo!", "Name: Bo", False),
        ("It is done.", "I said it.", False),
        ("So it is.", "Is it? No.", True),
        ("Annas Termin steht.", "Anna", False),
        ("Anna kommt gern.", "Annas Tochter", False),
        ("It is 7 o'clock.", "", False),
        ("Es ist ٣ Uhr.", "", False),
        ("½ is left", "", False),
        ("你好", "我 你好", False),
        ("你好小明", "我叫小明", False),
        ("请稍等", "我叫小明", True),
        ("  ", "", False),
        ("a" * (MAX_CHARACTERS + 1), "", False),
    ],
)
def test_what_everybody_may_hear(text: str, known: str, shareable: bool) -> None:
    assert is_shareable(text, [KnownWords(known)]) is shareable
