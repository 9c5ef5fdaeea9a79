"""Ends a conversation whose models fail: with one apology, aloud or in text, instead of silence.

The framework closes a session after four failed answers, and its job stays. Meanwhile the person hears nothing. Here
the first failure that the framework's own retries did not cure (a refused key, a model that is gone, a provider that
stays overloaded or silent) is apologised for, and the job ends. Aloud where the voice still speaks, else in text alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Literal

from livekit import rtc
from livekit.agents import AgentSession, CloseEvent, CloseReason, ErrorEvent, JobContext, stt
from livekit.agents.voice import SpeechHandle

from cache import BackgroundTasks

from .provider_errors import describe

logger = logging.getLogger("companion")
PLAYOUT_TIMEOUT: Final = 20.0
"""Seconds that the end of the job waits for the apology."""
_START_TIMEOUT: Final = 5.0
_HANG_UP_AFTER: Final = 1.0  # seconds
_APOLOGIES: Final = {
    "de": "Es tut mir leid, ich habe gerade ein technisches Problem und kann nicht weitersprechen. "
    "Bitte versuche es später noch einmal.",
    "en": "I am sorry, I have a technical problem and cannot go on right now. Please try again later.",
    "es": "Lo siento, tengo un problema técnico y no puedo continuar ahora. Por favor, inténtalo más tarde.",
    "fr": "Je suis désolé, j'ai un problème technique et je ne peux pas continuer. Merci de réessayer plus tard.",
    "it": "Mi dispiace, ho un problema tecnico e non posso continuare. Per favore, riprova più tardi.",
    "nl": "Het spijt me, ik heb een technisch probleem en kan nu niet verder. Probeer het later nog eens.",
    "pt": "Desculpe, tenho um problema técnico e não posso continuar agora. Por favor, tente mais tarde.",
}
Source = Literal["model", "voice", "hearing"]


def apology(language: str) -> str:
    """The apology in the language with this code, such as "pt-BR"; in English where there is none."""
    return _APOLOGIES.get(language.lower().partition("-")[0], _APOLOGIES["en"])


def end_call(ctx: JobContext, reason: str) -> None:
    """End the job. A phone caller would stay on a silent line, so that their room is closed, which hangs up.

    Not at once: what was played last is still on its way to them.
    """
    kinds = {participant.kind for participant in ctx.room.remote_participants.values()}
    if rtc.ParticipantKind.PARTICIPANT_KIND_SIP not in kinds:
        ctx.shutdown(reason)
        return

    def hang_up() -> None:
        ctx.delete_room()
        ctx.shutdown(reason)

    asyncio.get_running_loop().call_later(_HANG_UP_AFTER, hang_up)


class FailureHandler:
    """Apologises once for a failed model and then ends the job.

    Args:
        session: the session; it need not have started.
        language: language code of speech, or a function that finds it.
        end_job: ends the job, for a reason.
    """

    def __init__(
        self, session: AgentSession[Any], language: str | Callable[[], str], end_job: Callable[[str], None]
    ) -> None:
        self._session = session
        self._language = language if callable(language) else lambda: language
        self._end_job = end_job
        self._background = BackgroundTasks()
        self._failed = False
        self._voice_failed = asyncio.Event()
        session.on("error", self._on_error)
        session.on("close", self._on_close)

    def failed(self, source: Source, problem: BaseException) -> None:
        """Apologise, unless that has begun, and end the job. Returns at once.

        Args:
            source: what failed.
            problem: why.
        """
        if source == "voice":
            self._voice_failed.set()
            self._session.output.set_audio_enabled(False)  # from here on, what is said is said in text
        if self._failed:
            return
        self._failed = True
        logger.error("the %s failed (%s): apologising, and ending the conversation", source, describe(problem))
        self._background.spawn(self._finish(self._say()), name="apology")

    def _say(self) -> SpeechHandle | None:
        try:
            return self._session.say(apology(self._language()), allow_interruptions=False)
        except RuntimeError:  # the session is not running yet, or no longer
            return None

    async def _finish(self, speech: SpeechHandle | None) -> None:
        loop = asyncio.get_running_loop()
        started_by = loop.time() + _START_TIMEOUT
        while speech is None and loop.time() < started_by:
            await asyncio.sleep(0.05)
            speech = self._say()
        aloud = not self._voice_failed.is_set()
        if speech is not None:
            await self._played(speech)
        if aloud and self._voice_failed.is_set() and (again := self._say()) is not None:
            await self._played(again)
        self._end_job("a model failed")

    async def _played(self, speech: SpeechHandle) -> None:
        await asyncio.wait({asyncio.ensure_future(speech.wait_for_playout())}, timeout=PLAYOUT_TIMEOUT)

    def _on_error(self, event: ErrorEvent) -> None:
        # A failing model or voice is known from the agent's nodes: the model may be shared with other conversations.
        if isinstance(event.error, stt.STTError) and not event.error.recoverable:
            self.failed("hearing", event.error.error)

    def _on_close(self, event: CloseEvent) -> None:
        if event.reason is CloseReason.ERROR and not self._failed:
            self._failed = True
            self._end_job("the session failed")
