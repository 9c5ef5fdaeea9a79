"""What servers have done so far, as they say themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.real.redis.redis_server import RedisServer

_OWN = {"client|list", "cluster|nodes", "config|resetstat", "replconf", "psync", "command"}
"""Commands of the measuring itself, and of the servers among themselves. ``INFO`` is one of the conversations too."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The meters of all servers together.

    Attributes:
        cpu: seconds.
        commands: calls by command, those inside scripts too; not what replicas repeat.
        connections: of clients, without replicas and the measuring itself; the most on one server.
        total_connections: of all servers.
        memory: bytes in use.
        data: bytes in use for keys and values, once.
    """

    cpu: float
    commands: Counter[str]
    connections: int
    total_connections: int
    memory: int
    data: int


class Meter:
    """Reads the meters of some servers, and leaves out what that itself costs them."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self._servers = servers
        self._own = 0  # INFO commands so far

    def read(self) -> Reading:
        """Ask the servers."""
        cpu, memory, data = 0.0, 0, 0
        commands: Counter[str] = Counter(info=-self._own)
        connections = []
        for server in self._servers:
            info = dict(line.split(":", 1) for line in server.cli("INFO", "everything").splitlines() if ":" in line)
            primary = info["role"] == "master"
            cpu += float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
            memory += int(info["used_memory"])
            data += int(info["used_memory_dataset"]) * primary
            self._own += primary
            for name, text in info.items():
                command = name.removeprefix("cmdstat_")
                if command != name and command not in _OWN and primary:
                    commands[command] += int(text.partition("calls=")[2].partition(",")[0])
            lines = [line for line in server.cli("CLIENT", "LIST").splitlines() if " name=companion-cache " in line]
            connections.append(len(lines))
        return Reading(cpu, commands, max(connections), sum(connections), memory, data)
