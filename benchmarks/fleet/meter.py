"""What servers have done so far, as they say themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.real.redis.redis_server import RedisServer

_OWN = {"info", "client|list", "cluster|nodes", "config|resetstat", "replconf", "psync", "command"}
"""Commands of the measuring itself, and of the servers among themselves."""


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


def read(servers: Sequence[RedisServer]) -> Reading:
    """Ask the servers."""
    cpu, memory, data = 0.0, 0, 0
    commands: Counter[str] = Counter()
    connections = []
    for server in servers:
        info = dict(line.split(":", 1) for line in server.cli("INFO", "everything").splitlines() if ":" in line)
        cpu += float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        memory += int(info["used_memory"])
        data += int(info["used_memory_dataset"]) * (info["role"] == "master")
        for name, text in info.items():
            command = name.removeprefix("cmdstat_")
            if command != name and command not in _OWN and info["role"] == "master":
                commands[command] += int(text.partition("calls=")[2].partition(",")[0])
        lines = [line for line in server.cli("CLIENT", "LIST").splitlines() if " name=companion-cache " in line]
        connections.append(len(lines))
    return Reading(cpu, commands, max(connections), sum(connections), memory, data)
