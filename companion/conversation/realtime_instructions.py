"""The instructions of agents with a realtime model: no request goes to it, so what is remembered is at their end."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from livekit.agents import Agent, AgentSession, llm
from livekit.agents.llm.chat_context import Instructions


class RealtimeInstructions:
    """The instructions of one session's agents.

    Args:
        session: the session.
    """

    def __init__(self, session: AgentSession[Any]) -> None:
        self._session = session
        self._renewed: WeakKeyDictionary[Agent, tuple[str | Instructions, str]] = WeakKeyDictionary()

    def renew(self, agent: Agent, block: str) -> str | None:
        """The instructions to give an agent, with a block at their end; None if it has these already."""
        if self.have(agent, block):
            return None
        renewed = self._with(agent, block)
        self._renewed[agent] = self._own(agent), renewed
        return renewed

    def have(self, agent: Agent, block: str) -> bool:
        """Whether an agent's instructions have this block at their end; of an empty one, whether they have none."""
        return self._with(agent, block) == agent.instructions if block or agent in self._renewed else True

    def give_back(self) -> None:
        """Give the agents what the program gave them."""
        for agent, (own, renewed) in list(self._renewed.items()):
            if agent.instructions == renewed:
                agent._instructions = own

    def _own(self, agent: Agent) -> str | Instructions:
        """The instructions that the program gave an agent."""
        own, renewed = self._renewed.get(agent, (agent.instructions, ""))
        return own if agent.instructions == renewed else agent.instructions

    def _with(self, agent: Agent, block: str) -> str:
        return "\n\n".join(filter(None, (self._rendered(agent, self._own(agent)), block)))

    def _rendered(self, agent: Agent, instructions: str | Instructions) -> str:
        """The text of instructions, as the framework makes it for a realtime model."""
        if isinstance(instructions, str):
            return instructions
        model = model_of(self._session, agent)
        audio = isinstance(model, llm.RealtimeModel) and model.capabilities.audio_output
        return instructions.render(modality="audio" if audio else "text")


def model_of(session: AgentSession[Any], agent: Agent | None = None) -> object:
    """The model with which an agent of a session talks: its own, else the session's.

    Args:
        session: the session.
        agent: the agent; the one that talks now where None.
    """
    if agent is None:
        try:
            agent = session.current_agent
        except RuntimeError:  # the session is not running
            return session.llm
    return agent.llm if isinstance(agent.llm, llm.RealtimeModel | llm.LLM) else session.llm
