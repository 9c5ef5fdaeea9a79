"""A model, a key, a quota, a voice or an address that is wrong is one line before anything starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from livekit.agents import AgentSession

from companion.settings import Settings
from companion.voice.agent import CompanionAgent
from companion.voice.models import make_llm, make_session
from companion.voice.start_check import check
from companion.voice.start_check.check import Finding, check_at_start, check_models
from tests.real.models.inference_server import InferenceServer
from tests.real.models.openai_server import OpenAIServer, Reply
from tests.real.redis.redis_server import NOWHERE

pytestmark = pytest.mark.integration
KEY = "sk-proj-s3cretS3CRETs3cret"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an answer may take longer than a person would wait for a start."""
    monkeypatch.setattr(check, "CHECK_TIMEOUT", 60.0)


def settings(server: OpenAIServer, **env: str) -> Settings:
    return Settings.from_env({"OPENAI_BASE_URL": server.base_url, **env})


async def lines(server: OpenAIServer, *, speech: bool = False, **env: str) -> list[str]:
    found = [one.line for one in await check_models(settings(server, **env), speech=speech)]
    assert not any("\n" in line or "s3c" in line.lower() or len(line) > 500 for line in found), found
    return found


def ollama() -> OpenAIServer:
    """A local server that knows one model, and neither hears nor speaks."""
    return OpenAIServer(lambda body: f"I am {body['model']}.", models=["llama3.2"])


async def test_a_local_server_works_by_one_variable() -> None:
    async with ollama() as server:
        chosen = settings(server, COMPANION_LLM="llama3.2")
        assert await check_models(chosen, speech=False) == []
        assert server.checks[0].json["model"] == "llama3.2"
        model = make_llm(chosen)
        session: AgentSession[Any] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})
        async with session:
            await session.start(CompanionAgent())
            await session.run(user_input="Who are you?")
        assert [str(each.text_content) for each in session.history.messages()][-1] == "I am llama3.2."
        await model.aclose()


async def test_and_fails_legibly_without_it() -> None:
    async with ollama() as server:
        found = await check_models(settings(server), speech=True)
        url = server.base_url
        assert [one.line for one in found] == [
            f"COMPANION_LLM: {url} has no model 'gpt-4.1-mini' (HTTP 404: model 'gpt-4.1-mini' not found). It has: "
            "llama3.2. Set COMPANION_LLM to one of them.",
            f"COMPANION_STT: {url} has no model 'gpt-4o-mini-transcribe' (HTTP 404: model 'gpt-4o-mini-transcribe' not "
            "found). It has: llama3.2. Set COMPANION_STT to one of them, or to off for conversations in text.",
            f"COMPANION_TTS: {url} has no model 'gpt-4o-mini-tts' (HTTP 404: model 'gpt-4o-mini-tts' not found). It "
            "has: llama3.2. Set COMPANION_TTS to one of them, or to off for conversations in text.",
        ]
        assert all(one.lasting for one in found)
        in_text = {"COMPANION_LLM": "llama3.2", "COMPANION_STT": "off", "COMPANION_TTS": "OFF"}
        assert await lines(server, speech=True, **in_text) == []
        async with make_llm(settings(server, **in_text)) as model:  # a session connects its model at once
            session, options = make_session(settings(server, **in_text), model)
        assert (session.stt, session.tts, options.audio_input, options.audio_output) == (None, None, False, False)


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (
            Reply.error(401, f"Incorrect API key provided: {KEY[:8]}****cret.", "invalid_api_key"),
            "OPENAI_API_KEY: {url} refuses the key (HTTP 401: Incorrect API key provided: *** [invalid_api_key]). Set "
            "one that is valid there.",
        ),
        (Reply.error(403, f"{KEY} may not"), "OPENAI_API_KEY: {url} refuses the key (HTTP 403: *** may not). Set one"),
        (
            Reply.error(403, "Project `p` does not have access to model `gpt-x`", "model_not_found"),
            "COMPANION_LLM: {url} has no model 'gpt-x' (HTTP 403: Project `p` does not have access to model",
        ),
        (
            Reply.error(404, "The model `gpt-x` does not exist", "model_not_found"),
            "COMPANION_LLM: {url} has no model 'gpt-x' (HTTP 404: The model `gpt-x` does not exist [model_not_found]). "
            "Set COMPANION_LLM to the name of a model that it has.",
        ),
        (Reply.error(400, "Invalid model gpt-x"), "COMPANION_LLM: {url} has no model 'gpt-x' (HTTP 400"),
        (
            Reply.error(429, "You exceeded your current quota, please check your plan", "insufficient_quota"),
            "OPENAI_API_KEY: the quota at {url} is exhausted (HTTP 429: You exceeded your current quota, please check "
            "your plan [insufficient_quota]). Raise it, or set another key.",
        ),
        (Reply.error(402, "Payment required"), "OPENAI_API_KEY: the quota at {url} is exhausted (HTTP 402"),
        (
            Reply.error(404, "page\nnot  \x1b[31mfound"),
            "OPENAI_BASE_URL: {url} has nothing for 'gpt-x' at this address (HTTP 404: page not [31mfound). Set it to",
        ),
    ],
)
async def test_what_a_provider_refuses_for_good(reply: Reply, line: str) -> None:
    async with OpenAIServer([]) as server:
        server.check_reply = reply
        chosen = settings(server, COMPANION_LLM="gpt-x", OPENAI_API_KEY=KEY)
        (found,) = await check_models(chosen, speech=False)
        assert found.lasting
        assert found.line.startswith(line.format(url=server.base_url)), found.line
        assert await lines(server, COMPANION_LLM="gpt-x", OPENAI_API_KEY=KEY) == [found.line]


@pytest.mark.parametrize(
    "reply",
    [Reply.error(429, "Rate limit reached"), Reply.error(500, "oops"), Reply.error(503), Reply.error(400, "No")],
)
async def test_what_may_be_over_in_a_minute_is_a_warning(reply: Reply) -> None:
    async with OpenAIServer([]) as server:
        server.check_reply = reply
        (found,) = await check_models(settings(server), speech=False)
        assert not found.lasting
        assert found.line.startswith(f"COMPANION_LLM: {server.base_url} failed for 'gpt-4.1-mini' (HTTP {reply.status}")
        assert found.line.endswith("; going on.")


async def test_a_model_that_is_only_now_loaded_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CHECK_TIMEOUT", 0.2)
    async with OpenAIServer([]) as server:
        server.check_reply = Reply.silent()
        (found,) = await check_models(settings(server), speech=False)
        assert not found.lasting
        assert "failed for 'gpt-4.1-mini' (no answer within" in found.line


async def test_an_address_without_a_server_is_said_once() -> None:
    chosen = Settings.from_env({"OPENAI_BASE_URL": f"http://127.0.0.1:{NOWHERE}/v1"})
    (found,) = await check_models(chosen, speech=True)
    assert (found.lasting, found.unreachable) == (True, True)
    assert found.line.startswith(f"OPENAI_BASE_URL: http://127.0.0.1:{NOWHERE}/v1 does not answer (All")
    assert found.line.endswith("Set it to where the server is, such as http://HOST:PORT/v1.")


async def test_an_address_without_v1_is_said_once() -> None:
    async with OpenAIServer([]) as server:
        chosen = Settings.from_env({"OPENAI_BASE_URL": server.base_url.removesuffix("/v1")})
        (found,) = await check_models(chosen, speech=True)
        assert found.line == (
            f"OPENAI_BASE_URL: {chosen.openai_base_url} has nothing for 'gpt-4.1-mini' at this address (HTTP 404: Not "
            "Found). Set it to where the server is, such as http://HOST:PORT/v1."
        )


async def test_a_server_that_only_thinks_and_lists_nothing() -> None:
    class Thinker(OpenAIServer):
        async def _hear(self, request: web.Request) -> web.Response:
            raise web.HTTPNotFound

        async def _speak(self, request: web.Request) -> web.Response:
            raise web.HTTPNotFound

    async with Thinker([]) as server:
        hears, speaks = await lines(server, speech=True)
        assert hears == (
            f"COMPANION_STT: {server.base_url} has no model 'gpt-4o-mini-transcribe' (HTTP 404: Not Found). Set "
            "COMPANION_STT to the name of a model that it has, or to off for conversations in text."
        )
        assert speaks.startswith("COMPANION_TTS: ")


async def test_a_web_page_is_no_api() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    class Website(OpenAIServer):
        def add_routes(self, app: web.Application) -> None:
            app.router.add_route("*", "/{path:.*}", page)

    async with Website([]) as server:
        (found,) = await check_models(settings(server), speech=False)
        assert found.lasting
        assert found.line.startswith(
            f"OPENAI_BASE_URL: {server.base_url} has nothing for 'gpt-4.1-mini' at this address"
        )


async def test_a_voice_that_the_model_does_not_have() -> None:
    class Choosy(OpenAIServer):
        async def _speak(self, request: web.Request) -> web.Response:
            voice = (await request.json())["voice"]
            return web.json_response({"error": {"message": f"Invalid voice: {voice}"}}, status=400)

    async with Choosy([]) as server:
        (line,) = await lines(server, speech=True, COMPANION_VOICE="wrong", COMPANION_TTS="tts-1")
        assert line == (
            f"COMPANION_VOICE: {server.base_url} refuses it (HTTP 400: Invalid voice: wrong). Set a voice that "
            "'tts-1' has, or unset it."
        )


async def test_names_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three names and the voice, at a server that speaks OpenAI's protocol."""
    asked: dict[str, str] = {}

    class Noting(OpenAIServer):
        async def _speak(self, request: web.Request) -> web.Response:
            body = await request.json()
            asked.update(tts=body["model"], voice=body["voice"])
            return web.Response(body=bytes(100), content_type="audio/pcm")

        async def _hear(self, request: web.Request) -> web.Response:
            asked["stt"] = str((await request.post())["model"])
            return web.json_response({"text": ""})

    names = {"COMPANION_LLM": "org/llm", "COMPANION_STT": "org/stt", "COMPANION_TTS": "org/tts", "COMPANION_VOICE": "v"}
    async with Noting([]) as server:
        assert await lines(server, speech=True, **names) == []
        assert server.checks[0].json["model"] == "org/llm"
    assert asked == {"stt": "org/stt", "tts": "org/tts", "voice": "v"}


async def test_names_of_livekit_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "EARS_TIMEOUT", 0.1)
    cloud = {"LIVEKIT_URL": "wss://a.livekit.cloud", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s3cret" * 6}
    for name, value in cloud.items():
        monkeypatch.setenv(name, value)  # LiveKit reads them
    async with InferenceServer([]) as server:
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", server.base_url)
        names = {
            "COMPANION_LLM": "google/gemini",
            "COMPANION_TTS": "rime/arcana:one",
            "COMPANION_STT": "deepgram/x:multi",
        }
        chosen = Settings.from_env({**cloud, **names})
        assert chosen.models == "inference"
        assert await check_models(chosen, speech=True) == []
        assert server.checks[0].json["model"] == "google/gemini"
        server.check_reply = Reply.error(404, "model google/gemini not found")
        (found,) = await check_models(chosen, speech=False)
        assert found.line == (
            "COMPANION_LLM: LiveKit Inference has no model 'google/gemini' (HTTP 404: model google/gemini not found). "
            "Set COMPANION_LLM to the name of a model that it has."
        )
        server.check_reply = Reply.error(401, "invalid token")
        (found,) = await check_models(chosen, speech=False)
        assert found.line.startswith(
            "LIVEKIT_API_KEY and LIVEKIT_API_SECRET: LiveKit Inference refuses the key (HTTP 401"
        )


async def test_many_models_are_not_all_listed() -> None:
    names = [f"model-{number}" for number in range(200)] + ["llama3.2"]
    async with OpenAIServer([], models=names) as server:
        (line,) = await lines(server, COMPANION_LLM="lama3.2")
        assert "It has: llama3.2, 200 more. Set" in line
        (line,) = await lines(server, COMPANION_LLM="zzz")
        assert line.count("model-") == 11
        assert ", 189 more. Set" in line
        (line,) = await lines(server, COMPANION_LLM=f"{KEY}\t")
        assert "has no model '***' (HTTP 404: model '***' not found)" in line, "a key in the wrong variable"


def found(*findings: Finding) -> Callable[..., Awaitable[list[Finding]]]:
    async def check_models(*_: object, **__: object) -> list[Finding]:
        return list(findings)

    return check_models


@pytest.mark.parametrize(
    ("command", "finding", "ends"),
    [
        ("console", Finding("why", lasting=True), True),
        ("start", Finding("why", lasting=True), True),
        ("console", Finding("why", lasting=True, unreachable=True), True),
        ("dev", Finding("why", lasting=True, unreachable=True), True),
        ("start", Finding("why", lasting=True, unreachable=True), False),
        ("start", Finding("why", lasting=False), False),
        ("console", Finding("why", lasting=False), False),
    ],
)
def test_what_ends_a_start(
    command: str, finding: Finding, ends: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "check_models", found(finding))
    code: object = 0
    try:
        check_at_start(Settings.from_env({}), ["agent.py", command])
    except SystemExit as end:
        code = end.code
    assert code == int(ends)
    assert capsys.readouterr().err == "companion: why\n"
