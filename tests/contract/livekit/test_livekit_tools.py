"""The behaviour of LiveKit that the tools depend on. See docs/upgrading.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from livekit.agents import Agent, RunContext, function_tool, llm
from livekit.agents.llm import ToolFlag

from tests.contract.livekit.livekit_stand_in import Asked, PlayedLLM, Talk, calls, talking

pytestmark = pytest.mark.integration


class Box(llm.Toolset):
    """A toolset like those in ``tools``."""

    def __init__(self, returns: Any = "") -> None:
        super().__init__(id="box")
        self.returns = returns
        self.received: list[Any] = []

    @function_tool(name="openBox", flags=ToolFlag.IGNORE_ON_ENTER)
    async def open_box(self, context: RunContext[Any], pattern: str) -> Any:
        """Open the box.

        Use it only when asked.

        Args:
            pattern: What to look for.
        """
        self.received.append((type(context), pattern))
        if isinstance(self.returns, Exception):
            raise self.returns
        return self.returns

    @function_tool(name="look")
    async def look(self, context: RunContext[Any]) -> str:
        """Look at the box."""
        return "looked"


async def output_of(box: Box, arguments: str = '{"pattern": "user:*"}') -> tuple[Any, Talk]:
    """What the model gets back from ``openBox``, as the item in its context."""
    model = PlayedLLM(calls("openBox", arguments))
    async with talking(Agent(instructions="-", tools=[box]), model) as talk:
        await talk.say("go")
    return model.asked[-1].last, talk


async def test_the_tools_of_a_toolset_are_offered_under_their_names() -> None:
    """``tools.cache_tools``: a ``Toolset`` subclass offers its decorated methods."""
    async with talking(Agent(instructions="-", tools=[Box()])) as talk:
        await talk.say("hello")
    assert talk.offered == [{"openBox", "look"}]


async def test_the_schema_has_the_docstring_and_not_the_context() -> None:
    """``tools.cache_tools``: the docstring is the description; ``RunContext`` is not in the schema."""
    box = Box()
    (tool,) = (tool for tool in box.tools if isinstance(tool, llm.FunctionTool) and tool.info.name == "openBox")
    schema = llm.utils.build_legacy_openai_schema(tool, internally_tagged=True)
    assert schema["description"].startswith("Open the box.")
    assert "Use it only when asked." in schema["description"]
    assert set(schema["parameters"]["properties"]) == {"pattern"}
    assert schema["parameters"]["properties"]["pattern"]["description"] == "What to look for."


async def test_a_tool_gets_the_context_and_its_arguments() -> None:
    """``tools.cache_tools``: the framework injects the context by its annotation."""
    box = Box()
    await output_of(box)
    assert box.received == [(RunContext, "user:*")]


async def test_text_reaches_the_model_word_for_word() -> None:
    """``tools.cache_tools`` and ``tools.profile_tools`` return JSON text, which must arrive unchanged."""
    text = json.dumps({"success": True, "message": "für 'Ada' \"now\""}, ensure_ascii=False)
    output, _ = await output_of(Box(text))
    assert output.output == text
    assert not output.is_error


async def test_a_dict_reaches_the_model_as_pythons_repr() -> None:
    """``tools.cache_tools`` and ``tools.profile_tools`` therefore call ``json.dumps`` themselves."""
    output, _ = await output_of(Box({"success": True}))
    assert output.output == "{'success': True}"


async def test_arguments_that_a_tool_does_not_declare_are_dropped() -> None:
    """``tools.cache_tools``: an invented ``user_id`` is ignored, so it cannot select another user's cache."""
    box = Box("opened")
    output, _ = await output_of(box, '{"pattern": "user:*", "user_id": "eve", "operator": true}')
    assert output.output == "opened"
    assert box.received == [(RunContext, "user:*")]


def test_a_raw_surrogate_in_the_arguments_is_a_type_error() -> None:
    """``companion.voice.storable_chat`` mends the arguments before the framework parses them."""
    with pytest.raises(TypeError):
        llm.utils.parse_function_arguments('{"pattern": "\ud83d"}')


async def test_what_a_tool_raises_does_not_reach_the_model() -> None:
    """``tools.profile_tools``: the text of an unexpected exception may quote private data."""
    output, _ = await output_of(Box(RuntimeError("redis://user:password@host")))
    assert output.is_error
    assert "password" not in output.output


async def test_tools_with_the_flag_are_not_offered_while_the_agent_enters() -> None:
    """``tools.cache_tools`` and ``tools.profile_tools``: a greeting cannot clear or change anything."""
    offered: list[set[str]] = []

    class Eager(Agent):
        async def on_enter(self) -> None:
            self.session.generate_reply(instructions="greet")

    def note(asked: Asked) -> str:
        offered.append({tool.info.name for tool in asked.tools})
        return "hello"

    async with talking(Eager(instructions="-", tools=[Box()]), PlayedLLM(note)) as talk:
        await talk.spoken.wait()
        await talk.say("hello")
    assert offered == [{"look"}, {"openBox", "look"}]
