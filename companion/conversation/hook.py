"""Hooks the agents of a session, so that each request to a model holds what is remembered.

An agent's ``llm_node`` is replaced on the instance: a proxy around the agent would break ``isinstance``,
``current_agent`` and bound tools. The framework announces each agent before it starts, also one that comes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from livekit.agents import Agent, AgentSession, AgentTask, llm

from cache import BackgroundTasks

from .realtime_instructions import RealtimeInstructions, model_of

logger = logging.getLogger("companion")
BLOCK_ID: Final = "companion_memory"
"""Id of the item that holds the block in each request."""
_NONE: Final = object()


class AgentHook:
    """The hooks on the agents of one session.

    Args:
        session: the session.
        read_block: returns the block that a request to the model contains now; empty for none.
        start: puts earlier turns into the context of an agent that starts; returns the block as far as it is known.
        place: puts earlier turns into the context of a request, from an index on.
        tasks: whether an ``AgentTask`` is hooked too.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        read_block: Callable[[], Awaitable[str]],
        start: Callable[[llm.ChatContext], str],
        place: Callable[[llm.ChatContext, int], None],
        *,
        tasks: bool,
    ) -> None:
        self._session, self._read_block, self._start, self._place = session, read_block, start, place
        self._tasks = tasks
        self._nodes: WeakKeyDictionary[Agent, tuple[Any, Any]] = WeakKeyDictionary()
        self._instructions = RealtimeInstructions(session)
        self._removed = False
        self._refreshing: asyncio.Task[None] | None = None
        self._background = BackgroundTasks()

    @property
    def agents(self) -> list[Agent]:
        """The agents that are hooked."""
        return list(self._nodes)

    def on_handoff(self) -> None:
        """Hook the agent that begins to talk."""
        try:
            agent = self._session.current_agent
        except RuntimeError:  # the session is closing
            return
        if isinstance(agent, AgentTask) and not self._tasks:
            return
        if isinstance(model_of(self._session, agent), llm.RealtimeModel):
            # It gets both when the agent starts, for some models once and for all. LiveKit has no public way to change
            # them now: its methods are coroutines, and the agent starts as soon as this one returns.
            renewed = self._instructions.renew(agent, self._start(agent._chat_ctx))
            if renewed is not None:
                agent._instructions = renewed
        node, _ = self._nodes.get(agent, (_NONE, _NONE))
        if agent.llm_node is node:
            return
        inner, own = agent.llm_node, vars(agent).get("llm_node", _NONE)

        async def remembering(chat_ctx: llm.ChatContext, tools: list[Any], model_settings: Any) -> Any:
            if not self._removed:  # a program may have wrapped this one, and kept it
                self._place(chat_ctx, place(chat_ctx, await self._read_block()))
            result = inner(chat_ctx, tools, model_settings)
            return await result if asyncio.iscoroutine(result) else result

        agent.llm_node = remembering  # type: ignore[method-assign]  # the instance's, which the framework reads
        self._nodes[agent] = remembering, own
        self.refresh_soon()

    def remove(self) -> None:
        """Give the agents back as they were."""
        self._removed = True
        self._instructions.give_back()
        for agent, (node, own) in list(self._nodes.items()):
            if vars(agent).get("llm_node") is node:
                del agent.llm_node
                if own is not _NONE:
                    agent.llm_node = own  # type: ignore[method-assign]  # likewise

    def refresh_soon(self) -> None:
        """Do what :meth:`refresh` does, in the background."""
        if self._changeable() is not None and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._background.spawn(self.refresh(), name="memory-refresh")

    def check(self, block: str) -> None:
        """Do what :meth:`refresh` does, in the background, unless a realtime model has this block."""
        agent = self._changeable()
        if agent is not None and not self._instructions.have(agent, block):
            self.refresh_soon()

    async def refresh(self) -> None:
        """Give a realtime model the block and what was said before, if its instructions can change."""
        agent = self._changeable()
        if agent is None or self._removed:
            return
        try:
            await self._refresh(agent)
        except Exception as problem:  # whatever a model's client raises
            logger.warning("the model could not receive what is remembered (%s)", type(problem).__name__)

    async def _refresh(self, agent: Agent) -> None:
        block = await self._read_block()
        if (renewed := self._instructions.renew(agent, block)) is not None:
            await agent.update_instructions(renewed)
        model, context = model_of(self._session, agent), agent.chat_ctx.copy()
        self._place(context, 0)
        changeable = isinstance(model, llm.RealtimeModel) and model.capabilities.mutable_chat_context
        if changeable and len(context.items) > len(agent.chat_ctx.items):
            await agent.update_chat_ctx(context)

    def _changeable(self) -> Agent | None:
        """The agent that talks, if it is hooked and has a realtime model whose instructions can change."""
        try:
            agent = self._session.current_agent
        except RuntimeError:
            return None
        model = model_of(self._session, agent)
        changes = isinstance(model, llm.RealtimeModel) and model.capabilities.mutable_instructions
        return agent if changes and agent in self._nodes else None


def place(chat_ctx: llm.ChatContext, block: str) -> int:
    """Put a block into a context as one system message behind the instructions, in place of the one that is there.

    The context of a request is a copy: neither the session's history nor the agent's context changes.

    Returns:
        The index behind it.
    """
    items = chat_ctx.items
    items[:] = [item for item in items if item.id != BLOCK_ID]
    index, at = _behind_instructions(items)
    if block:
        items.insert(index, llm.ChatMessage(id=BLOCK_ID, role="system", content=[block], created_at=at))
    return index + bool(block)


def _behind_instructions(items: Sequence[llm.ChatItem]) -> tuple[int, float]:
    """The index behind the first system message that comes before the conversation, and its time."""
    for index, item in enumerate(items[:-1]):  # the last one says what to do now
        if isinstance(item, llm.ChatMessage):
            if item.role in ("system", "developer"):
                return index + 1, item.created_at
            break
    return 0, items[0].created_at if items else 0.0
