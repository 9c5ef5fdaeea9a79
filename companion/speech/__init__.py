"""Speech that is spoken once and kept: greetings of one person, and phrases that everybody hears."""

from .cached_tts import CachedTTS
from .plain_node import sounds_like_the_voice
from .private_words import keep_private
from .session_speech import SessionSpeech, VoiceSpeech

__all__ = ["CachedTTS", "SessionSpeech", "VoiceSpeech", "keep_private", "sounds_like_the_voice"]
