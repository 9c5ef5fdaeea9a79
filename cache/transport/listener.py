"""What a transport reports to its owner."""

from __future__ import annotations

from typing import Any, Protocol


class TransportListener(Protocol):
    """What the owner of a transport learns about its connections."""

    def on_connecting(self) -> None:
        """A new multiplexed client has begun to connect."""

    def on_handshake(self, replies: list[Any]) -> None:
        """The replies to the set-up commands of a new connection, before it is used. Rejections are among them."""

    def on_capabilities(self, lost: dict[str, str]) -> None:
        """What is lost without each command that the server refuses, as found in a handshake or later."""

    async def on_connected(self) -> None:
        """The multiplexed connection is usable. Cancelled when it is lost."""

    def on_disconnected(self, reason: str) -> None:
        """There is no multiplexed connection; called again when the reason changes. It holds no credentials."""

    def on_push(self, push: list[Any]) -> None:
        """A push message, in order with the replies."""

    def on_reply_too_large(self, names: list[str]) -> None:
        """A reply exceeds ``largest_reply_bytes``. ``names``: the keys that were read."""

    def on_pool_connected(self) -> None:
        """The pool has a client that Redis answers."""

    def on_pool_failed(self, reason: str) -> None:
        """The pool could not connect. The reason holds no credentials."""
