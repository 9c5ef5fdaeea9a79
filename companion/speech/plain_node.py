"""Which agents sound as their voice does: those whose ``tts_node`` is the framework's, or adds nothing to the sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from livekit.agents import Agent

_MARK: Final = "_companion_sounds_like_the_voice"
Node = TypeVar("Node", bound=Callable[..., Any])


def sounds_like_the_voice(node: Node) -> Node:
    """Mark a ``tts_node`` that changes nothing of what the voice says: a decorator."""
    setattr(node, _MARK, True)
    return node


def has_own_sound(agent: Agent) -> bool:
    """Whether the ``tts_node`` of an agent may change how a text sounds."""
    node = type(agent).tts_node
    return "tts_node" in vars(agent) or not (node is Agent.tts_node or getattr(node, _MARK, False))
