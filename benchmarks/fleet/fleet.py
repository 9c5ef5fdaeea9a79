"""Many conversations on one server and on a cluster: connections, the server's CPU, commands, memory."""

from __future__ import annotations

import asyncio
import resource
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.figures import number
from benchmarks.fleet.meter import Meter, Reading
from cache.coherence.server_epoch import CHECK_EVERY
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import replicated_cluster

FLEET: Final = 10_000
"""Conversations to which the figures are extrapolated."""
IDLE_LIMIT: Final = 0.1
"""Cores of the server that so many idle conversations may cost."""
_PROCESSES: Final = 2
_PAUSE: Final = 4.0  # seconds between two turns
_TURNS: Final = 3
_SETTLED: Final = 6.0  # seconds after the last turn from which on a conversation counts as idle


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured of one fleet.

    Attributes:
        idle, talking: seconds of the servers' CPU per second and conversation, without what they take alone.
        alone: seconds of CPU per second that the servers take with the same data and no conversation.
        idle_commands: commands per second and conversation.
        commands: those of one whole conversation, connecting included.
        connections: of one conversation, at the end of it.
        most: connections of one conversation on one server.
        per_connection, per_user: bytes of the servers' memory for a connection, and for what is cached of a user.
        wrong: answers that were wrong.
    """

    idle: float
    talking: float
    alone: float
    idle_commands: float
    commands: Counter[str]
    connections: float
    most: float
    per_connection: float
    per_user: float
    wrong: int


async def run(bench: Bench) -> None:
    """Print the tables and record the targets."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    count = bench.pick(600, 300)
    seconds = bench.pick(2, 1) * CHECK_EVERY
    found: dict[str, Costs] = {}
    for place, near in (
        ("one server", ""),
        ("one server", "profile"),
        ("a cluster of 3 + 3", ""),
        ("a cluster of 3 + 3", "profile"),
    ):
        with _servers(bench, place) as servers:
            found[f"{place}{', near cache' if near else ''}"] = await _measure(servers, near, count, seconds)
    bench.title(
        f"{count} conversations at once",
        f"Measured with {count} conversations in {_PROCESSES} processes, each with a cache of its own: {_TURNS} turns, "
        f"one every {_PAUSE:.0f} s, then {seconds:.0f} s idle. The columns for {FLEET:,} are these figures times "
        f"{FLEET / count:.1f}: an extrapolation. CPU is that of all servers together, without what they take alone, "
        "which is measured for as long when the conversations are closed and their data are still there.",
    )
    head = (
        "conversations on",
        "connections each",
        "on one server",
        "idle: commands/s each",
        f"idle: cores for {FLEET:,}",
    )
    head += (f"talking: cores for {FLEET:,}", "servers alone: cores", "KiB per connection", "bytes per user", "wrong")
    bench.table(head, [_row(name, costs) for name, costs in found.items()])
    bench.title("Commands of one conversation", f"From connecting to the end, {_TURNS} turns.")
    names = sorted({name for costs in found.values() for name in costs.commands})
    rows = [[name, *(number(costs.commands[name]) for costs in found.values())] for name in names]
    rows.append(["all", *(number(sum(costs.commands.values())) for costs in found.values())])
    bench.table(("command", *found), rows)
    for name, costs in found.items():
        cores = costs.idle * FLEET
        met = cores < IDLE_LIMIT and not costs.wrong
        bench.target(f"{FLEET:,} idle conversations on {name}", f"< {IDLE_LIMIT} core", number(cores), met)
    one = found["one server"]
    bench.target("connections of a conversation, one server", "1", number(one.connections), one.connections == 1)
    cluster = found["a cluster of 3 + 3"]
    bench.target("connections of a conversation on a node", "<= 1", number(cluster.most), cluster.most <= 1)


def _row(name: str, costs: Costs) -> list[str]:
    return [
        name,
        number(costs.connections),
        number(costs.most),
        number(costs.idle_commands),
        number(costs.idle * FLEET),
        number(costs.talking * FLEET),
        number(costs.alone),
        number(costs.per_connection / 1024),
        number(costs.per_user),
        str(costs.wrong),
    ]


@contextmanager
def _servers(bench: Bench, place: str) -> Iterator[Sequence[RedisServer]]:
    if place == "one server":
        yield [bench.server()]
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, replicated_cluster(Path(folder)) as cluster:
            yield cluster.nodes


async def _measure(servers: Sequence[RedisServer], near: str, count: int, seconds: float) -> Costs:
    share = count // _PROCESSES
    meter = Meter(servers)
    start = meter.read()
    async with AsyncExitStack() as stack:
        arguments = [(servers[0].url, near, str(first * share), str(share)) for first in range(_PROCESSES)]
        children = [await stack.enter_async_context(Child("fleet.fleet_worker", *each)) for each in arguments]
        await _all(children, "connect")
        connected, began = meter.read(), asyncio.get_running_loop().time()
        replies = await _all(children, {"turns": _TURNS, "pause": _PAUSE})
        took = asyncio.get_running_loop().time() - began
        after = meter.read()
        await asyncio.sleep(_SETTLED)
        idle = await _while_idle(meter, seconds)
        await _all(children, "close")
        closed = meter.read()
    alone = await _while_idle(meter, seconds)
    conversations = share * _PROCESSES
    commands = after.commands - start.commands
    return Costs(
        idle=max(0.0, idle[0] - alone[0]) / conversations,
        talking=max(0.0, (after.cpu - connected.cpu) / took - alone[0]) / conversations,
        alone=alone[0],
        idle_commands=idle[1] / conversations,
        commands=Counter({name: calls / conversations for name, calls in commands.items()}),
        connections=after.total_connections / conversations,
        most=after.connections / conversations,
        per_connection=(after.memory - closed.memory) / max(1, after.total_connections),
        per_user=(closed.data - start.data) / conversations,
        wrong=sum(reply["wrong"] for reply in replies),
    )


async def _while_idle(meter: Meter, seconds: float) -> tuple[float, float]:
    """The servers' seconds of CPU, and their commands, per second."""
    before = meter.read()
    await asyncio.sleep(seconds)
    after: Reading = meter.read()
    return (after.cpu - before.cpu) / seconds, sum((after.commands - before.commands).values()) / seconds


async def _all(children: Sequence[Child], message: object) -> list[dict[str, int]]:
    return await asyncio.gather(*(child.ask(message) for child in children))
