"""Speech that is spoken once and kept: greetings of one person, and phrases that everybody hears."""

from .cached_tts import CachedTTS
from .plain_node import sounds_like_the_voice
from .session_speech import SessionSpeech, VoiceSpeech

__all__ = ["CachedTTS", "SessionSpeech", "VoiceSpeech", "sounds_like_the_voice"]
