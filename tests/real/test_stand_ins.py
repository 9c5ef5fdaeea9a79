"""The stand-ins for model and console, driven by LiveKit's code."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, APIConnectionError, APIConnectOptions, APIStatusError, llm
from livekit.plugins import openai

from tests.real.livekit.tcp_console import TcpConsole
from tests.real.models.openai_server import OpenAIServer, Reply

pytestmark = pytest.mark.integration
TOY_AGENT = '''
from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, function_tool, llm

server = AgentServer()


class Toy(llm.LLM):
    def chat(self, *, chat_ctx, tools=None, conn_options, **_):
        return ToyStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class ToyStream(llm.LLMStream):
    async def _run(self):
        last = self._chat_ctx.items[-1]
        delta = llm.ChoiceDelta(role="assistant")
        if last.type == "function_call_output":
            delta.content = f"The tool says {last.output}."
        elif last.type == "message" and last.role == "user" and "weather" in last.text_content:
            call = llm.FunctionToolCall(name="weather", arguments='{"city": "Bern"}', call_id="c1")
            delta.tool_calls = [call]
        else:
            delta.content = f"You said {last.text_content}."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"sun in {city}"


async def half_a_second():
    for _ in range(10):
        yield rtc.AudioFrame(data=bytes(2400), sample_rate=24000, num_channels=1, samples_per_channel=1200)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session = AgentSession(llm=Toy(), vad=None, turn_handling={"turn_detection": None})
    await session.start(Agent(instructions="toy", tools=[weather]), room=ctx.room)
    await session.say("Good morning.", audio=half_a_second())
    session.output.set_audio_enabled(False)  # there is no text to speech
'''

OPTIONS = APIConnectOptions(max_retry=0, timeout=5)


class Weatherman(Agent):
    @llm.function_tool
    async def weather(self, city: str) -> str:
        """The weather in a city."""
        return json.dumps({"city": city, "sky": "clear"})


def model(server: OpenAIServer) -> openai.LLM:
    return openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test")


def question() -> llm.ChatContext:
    context = llm.ChatContext()
    context.add_message(role="user", content="hello")
    return context


async def ask(server: OpenAIServer) -> list[str]:
    async with model(server) as client, client.chat(chat_ctx=question(), conn_options=OPTIONS) as stream:
        return [chunk.delta.content async for chunk in stream if chunk.delta and chunk.delta.content]


async def test_a_session_calls_a_tool_and_answers() -> None:
    script = [Reply.call("weather", city="Zürich"), "Clear skies over Zürich."]
    async with OpenAIServer(script) as server, model(server) as client:
        async with AgentSession(llm=client, vad=None, turn_handling={"turn_detection": None}) as session:
            await session.start(Weatherman(instructions="You know the weather."))
            result = await session.run(user_input="How is the weather in Zürich?")
        result.expect.next_event().is_function_call(name="weather", arguments={"city": "Zürich"})
        result.expect.next_event().is_function_call_output()
        answer = result.expect.next_event().is_message(role="assistant").event().item
        assert answer.text_content == "Clear skies over Zürich."

    first, second = server.requests
    assert first.streamed
    assert first.user_text == "How is the weather in Zürich?"
    assert first.instructions == "You know the weather."
    assert list(first.tools) == ["weather"]
    assert "city" in first.tools["weather"]["parameters"]["properties"]
    assert first.tool_outputs == []
    assert [json.loads(output) for output in second.tool_outputs] == [{"city": "Zürich", "sky": "clear"}]


async def test_text_comes_in_pieces() -> None:
    async with OpenAIServer(["one two three four"]) as server:
        pieces = await ask(server)
    assert len(pieces) > 1
    assert "".join(pieces) == "one two three four"


async def test_two_tool_calls_in_one_answer_both_arrive_whole() -> None:
    calls = Reply.calls(("weather", {"city": "Bern"}), ("weather", "{broken"), text="Let me look.")
    async with OpenAIServer([calls]) as server, model(server) as client:
        response = await client.chat(chat_ctx=question(), conn_options=OPTIONS).collect()
    assert response.text == "Let me look."
    assert [call.arguments for call in response.tool_calls] == ['{"city": "Bern"}', "{broken"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.error(500), APIStatusError),
        (Reply.error(429), APIStatusError),
        (Reply.cut("Hel"), APIConnectionError),
        (Reply.malformed("Hel"), APIConnectionError),
    ],
)
async def test_faults_reach_the_client_as_its_own_errors(reply: Reply, error: type[Exception]) -> None:
    async with OpenAIServer([reply]) as server:
        with pytest.raises(error):
            await ask(server)


async def test_a_silent_model_does_not_keep_the_server_from_stopping() -> None:
    async with OpenAIServer([Reply.silent()]) as server, model(server) as client:
        options = APIConnectOptions(max_retry=0, timeout=0.2)
        with pytest.raises(APIConnectionError):
            await client.chat(chat_ctx=question(), conn_options=options).collect()


async def test_a_used_up_script_fails_the_test() -> None:
    async def run() -> None:
        async with OpenAIServer([]) as server:
            with pytest.raises(APIStatusError):
                await ask(server)

    with pytest.raises(AssertionError, match="no reply is left"):
        await run()


def test_a_plain_client_is_served_from_a_thread() -> None:
    def post(body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{server.base_url}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    server = OpenAIServer(lambda body: Reply.say(f"You said {body['messages'][-1]['content']}."))
    server.start_in_thread()
    try:
        answer = post({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
        assert answer["choices"][0]["message"]["content"] == "You said hello."
    finally:
        server.stop()
    with pytest.raises(urllib.error.URLError):
        post({"model": "m", "messages": []})


async def test_the_console_greets_answers_and_ends_in_text_and_with_sound(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY_AGENT)

    async def in_text() -> None:
        async with TcpConsole("toy.py", cwd=tmp_path) as console:
            assert await console.next_message() == "Good morning."
            turn = await console.say("how is the weather?")
            assert [(call.name, json.loads(call.arguments)) for call in turn.calls] == [("weather", {"city": "Bern"})]
            assert turn.outputs == ["sun in Bern"]
            assert turn.text == "The tool says sun in Bern."
            assert (await console.say("good")).text == "You said good."
            executed = await console.wait_for_event(lambda event: event.HasField("function_tools_executed"))
            assert executed.function_tools_executed.function_call_outputs[0].output == "sun in Bern"
            assert ("user", "good") in console.messages

    async def with_sound() -> None:
        async with TcpConsole("toy.py", cwd=tmp_path, text=False) as console:
            assert await console.next_message() == "Good morning."
            assert console.audio_seconds == pytest.approx(0.5, abs=0.05)

    await asyncio.gather(in_text(), with_sound())


async def test_an_agent_that_dies_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("raise SystemExit('no server here')")
    with pytest.raises(AssertionError, match="no server here"):
        async with TcpConsole("toy.py", cwd=tmp_path):
            pass
