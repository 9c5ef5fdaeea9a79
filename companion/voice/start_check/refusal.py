"""Why a provider refused a model, and which variable to change: one line of words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import APIConnectionError, APIError, APITimeoutError

_OPENAI: Final = "https://api.openai.com/v1"
_MODEL: Final = re.compile(r"\bmodels?\b|model_not_found|not_found_error", re.IGNORECASE)
_UNKNOWN: Final = re.compile(
    r"not[ _]found|not exist|unknown|invalid model|no such|not support|not available|no access|not have access"
    r"|unrecogni|not allowed|not (?:been )?(?:loaded|pulled)|decommissioned|deprecated|must be one of",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(r"quota|billing|credits?\b|balance|payment|spend|insufficient", re.IGNORECASE)
_VOICE: Final = re.compile(r"\bvoice\b", re.IGNORECASE)
_CREDENTIAL: Final = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key)[-_][^\s,;'\"]{6,}|\bBearer\s+\S+|[^\s'\"`]*\*{3,}[^\s'\"`]*", re.IGNORECASE
)
_REPEATED: Final = re.compile(r"^(?:Error code: )?\d{3}(?:: |$)")
_FRAMED: Final = re.compile(r"^.*\(caused by \w+: (.*)\)$")
_REASON_LENGTH: Final = 160


@dataclass(frozen=True, slots=True)
class Server:
    """Where models are.

    Attributes:
        models: which models are chosen.
        base_url: the address, where it is not the usual one.
        key: what is sent as the key.
    """

    models: str
    base_url: str | None
    key: str

    @property
    def url(self) -> str:
        """Its address."""
        return self.base_url or _OPENAI

    @property
    def key_variables(self) -> str:
        """The variables of its key."""
        return "OPENAI_API_KEY" if self.models == "openai" else "LIVEKIT_API_KEY and LIVEKIT_API_SECRET"

    def __str__(self) -> str:
        if self.models != "openai":
            return "LiveKit Inference"
        return re.sub(r"//[^/@]*@", "//", self.base_url) if self.base_url else "OpenAI"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal.

    Attributes:
        variable: of the model that was asked.
        model: its name.
        server: who was asked.
        reason: what was answered.
        cause: what is wrong, as far as the answer says.
        is_the_model: whether it is the name of the model.
        known: models that the server has, as far as that is known.
    """

    variable: str
    model: str
    server: Server
    reason: str
    cause: str
    is_the_model: bool = False
    known: tuple[str, ...] = ()

    @property
    def may_be_the_model(self) -> bool:
        """Whether the list of models says more."""
        return self.is_the_model or self.cause in ("", "address", "empty")

    @property
    def lasting(self) -> bool:
        """Whether trying later changes nothing."""
        return self.is_the_model or self.cause in ("key", "quota", "voice", "address", "empty", "unreachable")

    @property
    def unreachable(self) -> bool:
        """Whether no server answered."""
        return self.cause == "unreachable"

    @property
    def subject(self) -> str:
        """Equal for models whose one line is enough; empty for a line of its own."""
        return self.cause if self.cause in ("key", "quota", "address", "unreachable") and not self.is_the_model else ""

    @property
    def line(self) -> str:
        """What is wrong and what to do."""
        server, said = self.server, f" ({self.reason})" if self.reason else ""
        its_name = _without_key(self.model, server)[:80]
        if self.is_the_model:
            has = f" It has: {', '.join(self.known)}." if self.known else ""
            off = "" if self.variable == "COMPANION_LLM" else ", or to off for conversations in text"
            to = "one of them" if self.known else "the name of a model that it has"
            return f"{self.variable}: {server} has no model {its_name!r}{said}.{has} Set {self.variable} to {to}{off}."
        match self.cause:
            case "key":
                return f"{server.key_variables}: {server} refuses the key{said}. Set one that is valid there."
            case "quota":
                return (
                    f"{server.key_variables}: the quota at {server} is exhausted{said}. Raise it, or set another key."
                )
            case "voice":
                return f"COMPANION_VOICE: {server} refuses it{said}. Set a voice that {its_name!r} has, or unset it."
            case "address" | "empty" | "unreachable":
                where = "OPENAI_BASE_URL" if server.base_url else self.variable
                what = "does not answer" if self.unreachable else f"has nothing for {its_name!r} at this address"
                do = (
                    "Set it to where the server is, such as http://HOST:PORT/v1"
                    if server.base_url
                    else "Check the network"
                )
                return f"{where}: {server} {what}{said}. {do}."
        return f"{self.variable}: {server} failed for {its_name!r}{said}; going on."


def refusal(problem: Exception, variable: str, model: str, server: Server, voice: str | None = None) -> Refusal:
    """What an exception of a model's client means.

    Args:
        problem: the exception.
        variable: of the model.
        model: its name.
        server: who was asked.
        voice: the voice that was asked for.
    """
    status = getattr(problem, "status_code", None)
    status = status if isinstance(status, int) and status > 0 else None
    text = _REPEATED.sub("", _text(problem))
    its_model = status in (400, 403, 404, 422) and bool(_MODEL.search(text) and _UNKNOWN.search(text))
    reason = f"HTTP {status}: {text}" if status and text else f"HTTP {status}" if status else text
    cause = _cause(problem, status, text, voice)
    return Refusal(variable, model, server, _short(_without_key(reason, server)), cause, its_model)


def _short(text: str) -> str:
    text = text.rstrip(". ")
    return text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 3]}..."


def _cause(problem: Exception, status: int | None, text: str, voice: str | None) -> str:
    if isinstance(problem, APITimeoutError):
        return "slow"
    if isinstance(problem, APIConnectionError):
        return "unreachable"
    if status == 402 or (status in (403, 429) and _QUOTA.search(text)):
        return "quota"
    if status in (401, 403):
        return "key"
    if voice and status in (400, 404, 422) and _VOICE.search(text):
        return "voice"
    if status in (404, 405, 501):
        return "address"
    if not isinstance(problem, APIError):
        return "empty"
    return "" if status is None or status < 500 else "down"


def _text(problem: Exception) -> str:
    body = problem.body if isinstance(problem, APIError) else None
    error: Any = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    words = message if isinstance(message, str) and message else str(getattr(problem, "message", "") or problem)
    if isinstance(problem, APIConnectionError):
        words = _FRAMED.sub(r"\1", str(problem))
    return f"{words} [{code}]" if isinstance(code, str) and code not in words else words


def _without_key(text: str, server: Server) -> str:
    """A text without what may be a part of a key, on one line."""
    if len(server.key) > 4:  # no word that stands for one
        text = text.replace(server.key, "***")
    return " ".join("".join(char if char.isprintable() else " " for char in _CREDENTIAL.sub("***", text)).split())
