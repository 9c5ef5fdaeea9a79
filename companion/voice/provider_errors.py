"""What may be logged of a model provider's error: its class, its HTTP status, and its reason in known words.

A provider's message may quote what the caller said, or a part of an API key. Of a message, therefore, only words of a
fixed list are kept (``model_not_found``, ``rate limit``), which no caller can add to.
"""

from __future__ import annotations

import re
import traceback
from typing import Final

from livekit.agents import APIConnectionError, APIError

_REASONS: Final = re.compile(
    r"""(?ix) \b(?:
    model_not_found | not_found_error | invalid_api_key | authentication_error | permission_(?:denied|error)
    | insufficient_quota | rate_limit_(?:exceeded|error) | tokens_per_(?:minute|day) | billing_hard_limit_reached
    | billing_not_active | account_deactivated | context_length_exceeded | string_above_max_length
    | invalid_request_error | invalid_value | unsupported_(?:parameter|value|model|country_region_territory)
    | content_filter | content_policy_violation | server_error | api_error | overloaded(?:_error)?
    | model\ not\ found | not\ found | does\ not\ exist | (?:incorrect|invalid)\ api\ key | unauthori[sz]ed | forbidden
    | quota | rate\ limit | maximum\ context\ length | content\ management\ policy | time[ds]?\ ?out | unavailable
    )\b"""
)
_CLASSES: Final = (
    r"(?:API\w*|Authentication|BadRequest|Conflict|ContentFilterFinishReason|InternalServer|LengthFinishReason|NotFound"
    r"|PermissionDenied|RateLimit|UnprocessableEntity|Validation)Error"
)
# In a formatted message: an APIError's own text up to the end of its line, its repr (as in the repr of a task), and the
# root that an APIConnectionError names, whose text may have several lines.
_RESPONSE: Final = re.compile(
    rf"""(?m:(?:\bmessage=|\b{_CLASSES}\()["'].*?(?=,\ retrying\ in\ [\d.]+s$|$))"""
    rf"""|(?s:(?<=\bcaused\ by\ ){_CLASSES}:.*?(?=,\ retrying\ in\ [\d.]+s\Z|\Z))"""
)
_STATUS: Final = re.compile(r"\bstatus_code=(\d{3}), retryable=|\bError code: (\d{3})\b")
_INPUT: Final = re.compile(r"(?s)\binput_value=.*?(?=, input_type=\w+)")  # as pydantic quotes it in an error
_PROVIDERS: Final = frozenset({"anthropic", "google", "groq", "mistralai", "openai", "pydantic", "pydantic_core"})


def describe(problem: BaseException) -> str:
    """The class of an exception and what may be known of it: a provider's reason, or else the exception's own text."""
    name = type(problem).__name__
    try:
        text = _text(problem)
    except Exception:  # an exception whose text cannot be made
        text = ""
    return f"{name}: {text}" if text else name


def without_responses(text: str) -> str:
    """``text`` with each provider's response replaced by its HTTP status and its reasons."""
    return _INPUT.sub("input_value=...", _RESPONSE.sub(lambda match: _status(match.group()), text))


def comes_from_provider(problem: BaseException) -> bool:
    """Whether the exception, or one of its causes or parts, has a text that a provider wrote."""
    left, seen = [problem], set[int]()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if _is_provider(each):
            return True
        left += [one for one in (each.__cause__, each.__context__) if one is not None]
        left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return False


def format_exception(problem: BaseException, *, texts: bool = True) -> str:
    """The traceback of an exception with its causes, as Python formats it, with a provider's errors described.

    Args:
        problem: the exception.
        texts: whether the texts of other exceptions are shown; else only their classes are.
    """
    return "".join(_format(problem, set(), texts)).rstrip()


def _format(problem: BaseException, seen: set[int], texts: bool) -> list[str]:
    seen.add(id(problem))
    lines: list[str] = []
    cause, context = problem.__cause__, problem.__context__
    if cause is not None and id(cause) not in seen:
        lines += _format(cause, seen, texts)
        lines.append("\nThe above exception was the direct cause of the following exception:\n\n")
    elif cause is None and context is not None and not problem.__suppress_context__ and id(context) not in seen:
        lines += _format(context, seen, texts)
        lines.append("\nDuring handling of the above exception, another exception occurred:\n\n")
    if problem.__traceback__ is not None:
        lines.append("Traceback (most recent call last):\n")
        lines += traceback.format_tb(problem.__traceback__)
    module = type(problem).__module__
    # The text of an APIConnectionError is that of its cause, which may be any exception.
    described = texts or (_is_provider(problem) and not isinstance(problem, APIConnectionError))
    name = describe(problem) if described else type(problem).__name__
    lines.append(f"{'' if module == 'builtins' else f'{module}.'}{name}\n")
    if isinstance(problem, BaseExceptionGroup):
        for number, each in enumerate(problem.exceptions, 1):
            if id(each) not in seen:
                inner = "".join(_format(each, seen, texts))
                lines.append(f"  +---------------- {number} ----------------\n")
                lines += [f"  | {line}\n" for line in inner.splitlines()]
    return lines


def _text(problem: BaseException) -> str:
    if isinstance(problem, APIConnectionError):
        root = _root(problem)
        words = _reasons(problem.message)
        return f"caused by {describe(root)}" if root is not problem else ", ".join(words) or "no connection"
    if isinstance(problem, APIError):
        return _status(f"{problem}, body={problem.body!r}", getattr(problem, "status_code", None))
    if (errors := getattr(problem, "errors", None)) is not None and _root_module(problem) == "pydantic_core":
        return ", ".join(str(error["type"]) for error in errors(include_input=False, include_context=False))
    if _is_provider(problem):
        return _status(str(problem), getattr(problem, "status_code", None))
    return without_responses(str(problem))


def _is_provider(problem: BaseException) -> bool:
    return isinstance(problem, APIError) or _root_module(problem) in _PROVIDERS


def _root_module(problem: BaseException) -> str:
    return type(problem).__module__.partition(".")[0]


def _root(problem: BaseException) -> BaseException:
    """The first cause in the chain of an exception; the exception itself where there is none, or a circle."""
    seen = {id(problem)}
    while (cause := problem.__cause__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        problem = cause
    return problem


def _status(response: str, status: object = None) -> str:
    if not isinstance(status, int):
        found = _STATUS.search(response)
        status = (found.group(1) or found.group(2)) if found else "unknown"
    reasons = _reasons(response)
    return f"status {status} ({', '.join(reasons)})" if reasons else f"status {status}"


def _reasons(response: str) -> list[str]:
    return list(dict.fromkeys(match.group().lower() for match in _REASONS.finditer(response)))
