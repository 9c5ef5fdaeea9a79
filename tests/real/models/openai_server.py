"""A scripted chat model on loopback that speaks OpenAI's wire format."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from companion.voice.start_check.check import CHECK
from tests.real.loop_thread import LIMIT, LoopThread
from tests.real.models.openai_reply import Reply, ToolCall

__all__ = ["ChatRequest", "OpenAIServer", "Reply", "ToolCall"]

Script = Callable[[dict[str, Any]], Reply | str]

_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(frozen=True)
class ChatRequest:
    """One request as received. `at` is `time.monotonic()` when it arrived."""

    json: dict[str, Any]
    headers: Mapping[str, str]
    at: float = field(default_factory=time.monotonic)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.json.get("messages", []))

    @property
    def streamed(self) -> bool:
        return bool(self.json.get("stream"))

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Tool name -> the function schema the model was shown."""
        return {tool["function"]["name"]: tool["function"] for tool in self.json.get("tools", [])}

    @property
    def tool_outputs(self) -> list[str]:
        """The outputs of tools so far, unchanged, oldest first."""
        return [_text(message) for message in self.messages if message["role"] == "tool"]

    @property
    def instructions(self) -> str:
        """All system and developer messages, joined."""
        return "\n".join(_text(m) for m in self.messages if m["role"] in ("system", "developer"))

    @property
    def user_text(self) -> str:
        """The last user message; empty if there is none."""
        return next((_text(m) for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def is_check(self) -> bool:
        """Whether a worker or a console asks it before it starts."""
        return len(self.messages) == 1 and self.user_text == CHECK


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class OpenAIServer:
    """`async with OpenAIServer(script) as server:` then point a client at `server.base_url`.

    `heard` holds the model and the language of all that was to be transcribed, as silence.

    A check of the models at a start is answered without the script (`checks`). With `models` the server knows these
    only, and lists them; without, it takes any name, and has no list.

    `script` is a function from the request's JSON to a Reply (or a string), or a list of them, one for each
    request. A script that raises, or a list that is used up, answers 400 (which clients do not retry), and
    leaving the block raises an AssertionError that says so. `requests` holds all requests.
    Text to speech is answered with `speech` seconds of silence, or of a tone where `audible` says so (`tone`: always),
    after `speech_delay` seconds; or with the HTTP error that `speech_status` returns for a text; or never, where
    `speech_hangs` says so. At `other_url` the voice is another one, which is always silent (`spoken_by_other`).
    """

    def __init__(
        self,
        script: Script | Iterable[Reply | str],
        *,
        speech: float = 0.1,
        tone: bool = False,
        speech_delay: float = 0.0,
        models: Sequence[str] | None = None,
    ) -> None:
        self._script: Script = script if callable(script) else _one_by_one(script)
        samples = [int(8_000 * math.sin(at / 13)) for at in range(int(speech * 24_000))]
        self._tone, self._speech_delay = struct.pack(f"<{len(samples)}h", *samples), speech_delay
        self.audible: Callable[[str], bool] = lambda text: tone
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._thread: LoopThread | None = None
        self._models = models
        self.requests: list[ChatRequest] = []
        self.checks: list[ChatRequest] = []
        self.check_reply: Reply | str = "ready"
        self.spoken: list[str] = []
        self.heard: list[tuple[str, str]] = []
        self.spoken_by_other: list[str] = []
        self.speech_hangs: Callable[[str], bool] = lambda text: False
        self.speech_status: Callable[[str], int] = lambda text: 200
        self.errors: list[str] = []

    @property
    def base_url(self) -> str:
        """The value for `base_url=` or `OPENAI_BASE_URL`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def other_url(self) -> str:
        """As `base_url`: the same model on the same host, but another voice."""
        return self.base_url.replace("/v1", "/other/v1")

    async def __aenter__(self) -> OpenAIServer:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    def add_routes(self, app: web.Application) -> None:
        """Add what the server answers."""
        for prefix, speak in (("", self._speak), ("/other", self._speak_as_other)):
            app.router.add_post(f"{prefix}/v1/chat/completions", self._chat)
            app.router.add_post(f"{prefix}/v1/audio/transcriptions", self._hear)
            app.router.add_post(f"{prefix}/v1/audio/speech", speak)
        app.router.add_get("/v1/models", self._list)

    async def __aexit__(self, kind: object, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        if kind is None:
            self._check()

    def start_in_thread(self) -> OpenAIServer:
        """Serve from a thread of its own, for tests without a free event loop."""
        self._thread = LoopThread("openai-server")
        self._thread.submit(self.__aenter__()).result(LIMIT)
        return self

    def stop(self) -> None:
        """Stop the thread; raises AssertionError as the end of the block does."""
        assert self._thread is not None
        try:
            self._thread.submit(self.__aexit__(RuntimeError)).result(LIMIT)
        finally:
            self._thread.close()
        self._check()

    def _check(self) -> None:
        assert not self.errors, "the scripted model could not answer:\n" + "\n".join(self.errors)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        received = ChatRequest(body, dict(request.headers))
        (self.checks if received.is_check else self.requests).append(received)
        if (refused := self._refused(body.get("model", ""))) is not None:
            return refused
        try:
            scripted = self.check_reply if received.is_check else self._script(body)
        except Exception as error:
            self.errors.append("".join(traceback.format_exception(error)))
            return error_response(400, "the script failed")
        reply = Reply.say(scripted) if isinstance(scripted, str) else scripted
        if reply.fault == "silent":
            await asyncio.Event().wait()
        await asyncio.sleep(reply.delay)
        if reply.status != 200:
            return refusal(reply) if reply.text else error_response(reply.status, "scripted failure")
        send = self._stream if body.get("stream") else self._whole
        return await send(request, body, reply)

    async def _stream(self, request: web.Request, body: dict[str, Any], reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)

        async def send(data: str) -> None:
            await response.write(f"data: {data}\n\n".encode())
            if reply.pause:
                await asyncio.sleep(reply.pause)

        def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
            return json.dumps({**_envelope(body, "chat.completion.chunk"), "choices": choices, **more})

        for delta in reply.deltas():
            await send(chunk([{"index": 0, "delta": delta, "finish_reason": None}]))
        if reply.fault == "malformed":
            await send('{"id": "chatcmpl-1", "choices": [{"delta"')
        if reply.fault == "cut":
            assert request.transport is not None
            request.transport.close()
            return response
        await send(chunk([{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]))
        if (body.get("stream_options") or {}).get("include_usage"):
            await send(chunk([], usage=_USAGE))
        await send("[DONE]")
        await response.write_eof()
        return response

    async def _whole(self, request: web.Request, body: dict[str, Any], reply: Reply) -> web.StreamResponse:
        choice = {"index": 0, "message": reply.message(), "finish_reason": reply.finish_reason}
        envelope = _envelope(body, "chat.completion")
        data = json.dumps({**envelope, "choices": [choice], "usage": _USAGE}).encode()
        if reply.fault == "none":
            return web.Response(body=data, content_type="application/json")
        half = data[: len(data) // 2]
        if reply.fault == "malformed":
            return web.Response(body=half, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(half)
        assert request.transport is not None
        request.transport.close()
        return response

    def _refused(self, model: str) -> web.Response | None:
        """The answer to a name that is not known, as Ollama gives it."""
        if self._models is None or model in self._models:
            return None
        return refusal(Reply.error(404, f"model '{model}' not found"))

    async def _list(self, _: web.Request) -> web.Response:
        if self._models is None:
            raise web.HTTPNotFound
        listed = [{"id": f"{name}:latest", "object": "model", "owned_by": "library"} for name in self._models]
        return web.json_response({"object": "list", "data": listed})

    async def _hear(self, request: web.Request) -> web.Response:
        fields = await request.post()
        model = str(fields["model"])
        self.heard.append((model, str(fields.get("language"))))
        return self._refused(model) or web.json_response({"text": ""})

    async def _speak(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body["input"]
        if text == CHECK:
            return self._refused(body["model"]) or web.Response(body=self.speech(text), content_type="audio/pcm")
        if (status := self.speech_status(text)) != 200:
            return error_response(status, "scripted failure")
        self.spoken.append(text)
        if self.speech_hangs(text):
            await asyncio.Event().wait()
        await asyncio.sleep(self._speech_delay)
        return web.Response(body=self.speech(text), content_type="audio/pcm")

    async def _speak_as_other(self, request: web.Request) -> web.Response:
        if (text := (await request.json())["input"]) != CHECK:
            self.spoken_by_other.append(text)
        return web.Response(body=bytes(len(self._tone)), content_type="audio/pcm")

    def speech(self, text: str) -> bytes:
        """The sound of a text: a tone, or silence."""
        return self._tone if self.audible(text) else bytes(len(self._tone))


def _one_by_one(replies: Iterable[Reply | str]) -> Script:
    left = deque(replies)

    def script(body: dict[str, Any]) -> Reply | str:
        if not left:
            raise AssertionError(f"no reply is left in the list; the request ended with {body['messages'][-1]}")
        return left.popleft()

    return script


def _envelope(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": body.get("model", "")}


def refusal(reply: Reply) -> web.Response:
    """The reason that a provider gives."""
    detail = {"message": reply.text, "type": "invalid_request_error", "param": None, "code": reply.code or None}
    return web.json_response({"error": detail}, status=reply.status)


def error_response(status: int, message: str) -> web.Response:
    detail = {"message": message, "type": "server_error", "param": None, "code": None}
    return web.json_response({"error": detail}, status=status)
