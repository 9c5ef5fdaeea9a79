"""Hooks the agents of a session, so that each request to a model holds what is remembered.

An agent's ``llm_node`` is replaced on the instance: a proxy around the agent would break ``isinstance``,
``current_agent`` and bound tools. The framework announces each agent before it starts, also one that comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from livekit.agents import Agent, AgentSession, AgentTask, llm

from cache import BackgroundTasks

from ..prompts import PROFILE_HEADING

BLOCK_ID: Final = "companion_memory"
"""Id of the item that holds the block in each request."""
_NONE: Final = object()


class AgentHook:
    """The hooks on the agents of one session.

    Args:
        session: the session.
        read_block: returns the block that a request to the model contains now; empty for none.
        place: puts earlier turns into the context of a request, from an index on.
        tasks: whether an ``AgentTask`` is hooked too.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        read_block: Callable[[], Awaitable[str]],
        place: Callable[[llm.ChatContext, int], None],
        *,
        tasks: bool,
    ) -> None:
        self._session, self._read_block, self._place, self._tasks = session, read_block, place, tasks
        self._nodes: WeakKeyDictionary[Agent, tuple[Any, Any]] = WeakKeyDictionary()
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
        node, _ = self._nodes.get(agent, (_NONE, _NONE))
        if agent.llm_node is node:
            return
        inner, own = agent.llm_node, vars(agent).get("llm_node", _NONE)

        async def remembering(chat_ctx: llm.ChatContext, tools: list[Any], model_settings: Any) -> Any:
            self._place(chat_ctx, place(chat_ctx, await self._read_block()))
            result = inner(chat_ctx, tools, model_settings)
            return await result if asyncio.iscoroutine(result) else result

        agent.llm_node = remembering  # type: ignore[method-assign]  # the instance's, which the framework reads
        self._nodes[agent] = remembering, own
        self.refresh_soon()

    def remove(self) -> None:
        """Give the agents back as they were."""
        for agent, (node, own) in list(self._nodes.items()):
            if vars(agent).get("llm_node") is node:
                del agent.llm_node
                if own is not _NONE:
                    agent.llm_node = own  # type: ignore[method-assign]  # likewise

    def refresh_soon(self) -> None:
        """Do what :meth:`refresh` does, in the background."""
        if self._realtime(self._current()) and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._background.spawn(self.refresh(), name="memory-refresh")

    async def refresh(self) -> None:
        """Tell a realtime model what is remembered now, if its instructions can be changed."""
        agent = self._current()
        if agent is None or not self._realtime(agent):
            return
        block = await self._read_block()
        instructions = str(agent.instructions)
        base = instructions.partition(f"\n\n{PROFILE_HEADING}\n")[0]
        renewed = "\n\n".join(filter(None, (base, block)))
        if renewed != instructions:
            await agent.update_instructions(renewed)

    def _current(self) -> Agent | None:
        try:
            agent = self._session.current_agent
        except RuntimeError:
            return None
        return agent if agent in self._nodes else None

    def _realtime(self, agent: Agent | None) -> bool:
        if agent is None:
            return False
        model = agent.llm if isinstance(agent.llm, llm.RealtimeModel | llm.LLM) else self._session.llm
        return isinstance(model, llm.RealtimeModel) and model.capabilities.mutable_instructions


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
