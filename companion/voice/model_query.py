"""One question to a model outside the conversation, and the answer as text."""

from __future__ import annotations

from typing import Any

from livekit.agents import llm

from ..text import storable


async def ask(model: llm.LLM[Any], prompt: str, material: str) -> str:
    """The answer of ``model``, complete.

    Args:
        model: the model.
        prompt: the system prompt.
        material: what the prompt is about, as the user's message.

    Raises:
        Exception: what the model's client raises.
    """
    question = llm.ChatContext.empty()
    question.add_message(role="system", content=storable(prompt))
    question.add_message(role="user", content=storable(material))
    return await _answer(model, question)


async def first_message(model: llm.LLM[Any], *instructions: str) -> str:
    """What ``model`` says first, by these instructions: asked as a session asks for a greeting.

    Raises:
        Exception: what the model's client raises.
    """
    question = llm.ChatContext.empty()
    for text in instructions:
        question.add_message(role="system", content=storable(text))
    return await _answer(model, question)


async def _answer(model: llm.LLM[Any], question: llm.ChatContext) -> str:
    async with model.chat(chat_ctx=question) as stream:
        return (await stream.collect()).text
