"""LiveKit Inference on loopback: the model and the voice of an `OpenAIServer`, and ears that hear nothing."""

from __future__ import annotations

import json
from base64 import b64encode

from aiohttp import WSMsgType, web

from companion.voice.start_check.check import CHECK
from tests.real.models.openai_server import OpenAIServer

__all__ = ["InferenceServer"]


class InferenceServer(OpenAIServer):
    """An `OpenAIServer` whose `base_url` is the value for `LIVEKIT_INFERENCE_URL`."""

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_get("/v1/tts", self._tts)
        app.router.add_get("/v1/stt", self._stt)

    async def _tts(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is not WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            if event["type"] == "session.create":
                await websocket.send_json({"type": "session.created", "session_id": "s"})
            elif event["type"] == "input_transcript":
                text = event["transcript"].strip()
                if text != CHECK:
                    self.spoken.append(text)
                audio = b64encode(self.speech(text)).decode()
                await websocket.send_json({"type": "output_audio", "session_id": "s", "audio": audio})
            elif event["type"] == "session.flush":
                await websocket.send_json({"type": "done", "session_id": "s"})
        return websocket

    async def _stt(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for _ in websocket:
            pass
        return websocket
