"""Text streams as LiveKit rooms carry them: a header, chunks, a trailer, each in a data packet."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from livekit.protocol.models import DataPacket, DataStream

_CHUNK_BYTES = 15_000  # the clients' own limit
_numbers = itertools.count(1)


@dataclass
class TextStream:
    """One text stream. `started_at` and `finished_at` are `time.time()`; None: not yet."""

    id: str
    topic: str
    sender: str
    attributes: dict[str, str]
    pieces: list[str] = field(default_factory=list)
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class TextStreams:
    """All text streams received, in the order of their headers."""

    def __init__(self) -> None:
        self._streams: dict[str, TextStream] = {}

    def __iter__(self) -> Iterator[TextStream]:
        return iter(list(self._streams.values()))

    def take(self, packet: DataPacket) -> None:
        """Process one packet; packets of no text stream are ignored.

        Raises:
            ValueError: the stream is compressed, which a client does only if the receiver announced support.
        """
        kind = packet.WhichOneof("value")
        if kind == "stream_header" and packet.stream_header.HasField("text_header"):
            self._begin(packet.stream_header, packet.participant_identity)
        elif kind == "stream_chunk" and (stream := self._streams.get(packet.stream_chunk.stream_id)):
            self._add(stream, packet.stream_chunk.content)
        elif kind == "stream_trailer" and (stream := self._streams.get(packet.stream_trailer.stream_id)):
            stream.attributes.update(packet.stream_trailer.attributes)
            stream.finished_at = time.time()

    def _begin(self, header: DataStream.Header, sender: str) -> None:
        if header.compression != DataStream.CompressionType.NONE:
            raise ValueError("a compressed text stream, although no receiver announced support")
        stream = TextStream(header.stream_id, header.topic, sender, dict(header.attributes))
        self._streams[stream.id] = stream
        if header.HasField("inline_content"):
            self._add(stream, header.inline_content)
            stream.finished_at = time.time()

    def _add(self, stream: TextStream, content: bytes) -> None:
        if content and stream.started_at is None:
            stream.started_at = time.time()
        stream.pieces.append(content.decode())


def text_packets(text: str, *, topic: str, sender: str, sender_sid: str) -> list[DataPacket]:
    """The packets that carry `text` from `sender`, as the server forwards them."""
    stream_id = f"stream-{next(_numbers)}"
    content = text.encode()
    header = DataStream.Header(
        stream_id=stream_id,
        timestamp=int(time.time() * 1000),
        topic=topic,
        mime_type="text/plain",
        total_length=len(content),
        text_header=DataStream.TextHeader(operation_type=DataStream.OperationType.CREATE),
    )
    chunks = [
        DataStream.Chunk(stream_id=stream_id, chunk_index=index, content=piece)
        for index, piece in enumerate(_split(content))
    ]
    origin = {"kind": DataPacket.RELIABLE, "participant_identity": sender, "participant_sid": sender_sid}
    return [
        DataPacket(stream_header=header, **origin),
        *(DataPacket(stream_chunk=chunk, **origin) for chunk in chunks),
        DataPacket(stream_trailer=DataStream.Trailer(stream_id=stream_id), **origin),
    ]


def _split(content: bytes) -> Iterator[bytes]:
    """Split into pieces of whole characters: a receiver decodes each separately."""
    start = 0
    while start < len(content):
        end = min(start + _CHUNK_BYTES, len(content))
        while end < len(content) and content[end] & 0b1100_0000 == 0b1000_0000:
            end -= 1
        yield content[start:end]
        start = end
