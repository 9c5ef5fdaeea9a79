"""What may happen to Redis, each with how it begins and how it ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cache import keys
from tests.faults.session import USER
from tests.faults.world import NAME, PASSWORD, Transport, World
from tests.real.resp import RedisReplyError, ask
from tests.wait import until

Step = Callable[[World], Awaitable[None]]
HUNDRED_MB = 100 << 20


@dataclass(frozen=True)
class Fault:
    """Something that happens to Redis.

    Attributes:
        name: as the table shows it.
        begin: makes it happen; afterwards it is there.
        end: ends it; when it returns, Redis is as good as before.
        road: how the worker reaches Redis.
        noticed: whether the worker has anything to notice: an operator must find it in counters and log.
        changes: how often Redis may come and go; the log may have a line for each time.
    """

    name: str
    begin: Step
    end: Step
    road: Transport = "direct"
    noticed: bool = True
    changes: float = 1


async def nothing(world: World) -> None:
    """It is over as soon as it has happened, or the worker itself puts it right."""


async def over(world: World) -> None:
    await world.cease()


# -- the server ----------------------------------------------------------------------------------------------------


async def stop(world: World) -> None:
    world.server.pause()


async def resume(world: World) -> None:
    world.server.resume()


async def kill(world: World) -> None:
    await asyncio.to_thread(world.server.kill)


async def restart_loading(world: World) -> None:
    """More than a second of loading: a dump of 23 MB, and a pause at each key."""
    server = world.server
    users = server.directory / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser {NAME} on >{PASSWORD} ~* &* +@all\n")
    await world.bulk(*(("SETRANGE", f"ballast:{number}", 1 << 16, "x") for number in range(350)))
    await asyncio.to_thread(server.stop, save=True)
    server.args += ["--key-load-delay", "4000", "--aclfile", str(users)]
    loaded = world.meanwhile(asyncio.to_thread(server.start))
    while not loaded.done():
        try:
            await world.cli("PING")
        except RedisReplyError:  # LOADING
            return
        except OSError:
            await asyncio.sleep(0.005)


async def wait_until_loaded(world: World) -> None:
    while True:
        try:
            await world.cli("PING")
            return
        except (RedisReplyError, OSError):
            await asyncio.sleep(0.005)


async def restore_old_dump(world: World) -> None:
    """What others write between the dump and its restoration is not in it."""
    server = world.server
    dump = await asyncio.to_thread(server.dump)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(server.kill)
    (server.directory / "dump.rdb").write_bytes(dump)


async def restart(world: World) -> None:
    await asyncio.to_thread(world.server.start)
    await world.welcome_worker()


async def become_replica(world: World) -> None:
    await world.cli("REPLICAOF", "127.0.0.1", "1")


async def become_primary(world: World) -> None:
    await world.cli("REPLICAOF", "NO", "ONE")


async def fill_memory(world: World) -> None:
    await world.bulk(("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", "1"))


async def give_memory(world: World) -> None:
    await world.cease()
    await world.bulk(("CONFIG", "SET", "maxmemory", "0"), ("CONFIG", "SET", "maxmemory-policy", "noeviction"))


async def evict(world: World) -> None:
    """Twice as much is written as there is room for, all the time."""
    used = int(
        next(line for line in (await world.cli("INFO", "memory")).splitlines() if "used_memory:" in line).partition(
            ":"
        )[2]
    )
    await world.bulk(
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-random"), ("CONFIG", "SET", "maxmemory", used + (1 << 20))
    )
    numbers = iter(range(1 << 30))

    async def flood() -> None:
        await world.bulk(*(("SET", f"flood:{next(numbers)}", "x" * 20_000) for _ in range(50)))

    world.keep_doing(flood, 0.02)


async def change_password(world: World) -> None:
    await world.bulk(("ACL", "SETUSER", NAME, "resetpass", ">another"), ("CLIENT", "KILL", "USER", NAME))


async def restore_password(world: World) -> None:
    await world.cli("ACL", "SETUSER", NAME, "resetpass", f">{PASSWORD}")


def forbid(*rules: str) -> Step:
    async def begin(world: World) -> None:
        await world.cli("ACL", "SETUSER", NAME, *rules)

    return begin


async def allow(world: World) -> None:
    await world.welcome_worker()


async def kill_clients(world: World) -> None:
    world.keep_doing(lambda: world.cli("CLIENT", "KILL", "USER", NAME), 0.08)


async def fill_connection_table(world: World) -> None:
    """As many idle clients as the server takes, and no room for the worker."""
    crowd = await asyncio.to_thread(lambda: [world.server._connect() for _ in range(10)])
    operator = crowd[0]

    async def leave_when_over() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ask(operator, ("CONFIG", "SET", "maxclients", "10000"))
            for link in crowd:
                link.close()

    world.meanwhile(leave_when_over())
    for link in crowd:  # answered: the server has let it in
        await asyncio.to_thread(ask, link, ("PING",))
    ask(operator, ("CONFIG", "SET", "maxclients", len(crowd)), ("CLIENT", "KILL", "USER", NAME))


# -- the network ---------------------------------------------------------------------------------------------------


async def close_port(world: World) -> None:
    await world.network(lambda proxy: (proxy.refuse(), proxy.reset_all()))


async def heal(world: World) -> None:
    await world.cease()
    await world.network(lambda proxy: proxy.heal())


async def reset(world: World) -> None:
    world.keep_doing(lambda: world.network(lambda proxy: proxy.reset_all()), 0.08)


async def black_hole(world: World) -> None:
    await world.network(lambda proxy: proxy.blackhole())


def delay(seconds: float) -> Step:
    async def begin(world: World) -> None:
        def far(proxy: object) -> None:
            proxy.delay_to_server = proxy.delay_to_client = seconds  # type: ignore[attr-defined] # a Proxy

        await world.network(far)

    return begin


def show(name: str, **options: bool) -> Step:
    async def begin(world: World) -> None:
        assert world.authority is not None
        stranger = type(world.authority)(world.directory / "tls-of-somebody-else")
        world.show((stranger if name == "untrusted" else world.authority).issue(name, **options))
        await world.network(lambda proxy: proxy.reset_all())

    return begin


# -- the data ------------------------------------------------------------------------------------------------------


def spoil(command: str, *arguments: str) -> Step:
    """Do ``command`` to every key that the worker reads, in place of what was there."""

    async def begin(world: World) -> None:
        for key in world.keys:
            await world.replace(key, command, *arguments)

    return begin


async def cut_short(world: World) -> None:
    """A character of two bytes lost one, and a JSON text its end."""
    await world.bulk(*(("SET", key, b"Name: Zo\xc3") for key in world.keys))
    await world.cli("SET", keys.greeting_instructions(USER), '{"opening": "follow_up", "last_s')


async def huge(world: World) -> None:
    for key in world.keys:
        await world.replace(key, "SETRANGE", HUNDRED_MB, "x")


async def huge_ones_gone(world: World) -> None:
    """The worker itself removes what it cannot read. Until it has, the server is busy with copying it."""

    async def gone() -> bool:
        return not any([await world.cli("STRLEN", key) >= HUNDRED_MB for key in world.keys])

    await until(gone, 5.0)


async def flush_all(world: World) -> None:
    world.keep_doing(lambda: world.cli("FLUSHALL"), 0.03)


async def flush_scripts(world: World) -> None:
    world.keep_doing(lambda: world.cli("SCRIPT", "FLUSH"), 0.03)


FAULTS = (
    Fault("port closed", close_port, heal, "proxy"),
    Fault("connection reset", reset, heal, "proxy", changes=math.inf),
    Fault("server stopped (SIGSTOP)", stop, resume),
    Fault("killed, restarted empty", kill, restart),
    Fault("restarted, LOADING", restart_loading, wait_until_loaded),
    Fault("restored, old dump", restore_old_dump, restart),
    Fault("READONLY replica", become_replica, become_primary),
    Fault("OOM, noeviction", fill_memory, give_memory),
    Fault("eviction under load", evict, give_memory, noticed=False),
    Fault("wrong password", change_password, restore_password),
    Fault("NOPERM everything", forbid("-@all"), allow),
    Fault("NOPERM GET", forbid("-get"), allow),
    Fault("NOPERM SET", forbid("-set"), allow),
    Fault("NOPERM EVALSHA", forbid("-evalsha"), allow),
    Fault("NOPERM UNLINK", forbid("-unlink"), allow),
    Fault("NOPERM CLIENT", forbid("-client"), allow, noticed=False),
    Fault("NOPERM keys", forbid("resetkeys", "~somebody-else:*"), allow),
    Fault("TLS untrusted", show("untrusted"), show("good"), "tls"),
    Fault("TLS expired", show("expired", expired=True), show("good"), "tls"),
    Fault("wrong type", spoil("RPUSH", "not", "a", "string"), nothing),
    Fault("value cut short", cut_short, nothing, noticed=False),
    Fault("reply of 100 MB", huge, huge_ones_gone, changes=6),
    Fault("FLUSHALL", flush_all, over, noticed=False),
    Fault("SCRIPT FLUSH", flush_scripts, over, noticed=False),
    Fault("slow link, 50 ms", delay(0.05), delay(0.0), "proxy"),
    Fault("slow link, 15 ms", delay(0.015), delay(0.0), "proxy", noticed=False),
    Fault("black hole", black_hole, heal, "proxy"),
    Fault("CLIENT KILL", kill_clients, over, changes=math.inf),
    Fault("connection table full", fill_connection_table, over),
)
