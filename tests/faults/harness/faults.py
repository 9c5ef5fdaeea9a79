"""The faults of Redis: how to inject and how to remove each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cache import keys
from tests.faults.harness.dialogue import USER
from tests.faults.harness.environment import PASSWORD, WORKER, Environment, Route
from tests.real.redis.resp import RedisReplyError, ask
from tests.wait import until

Action = Callable[[Environment], Awaitable[None]]
HUNDRED_MB = 100 << 20


@dataclass(frozen=True)
class Fault:
    """A fault of Redis.

    Attributes:
        name: name in the table.
        begin: injects the fault; it is in effect on return.
        end: removes it; Redis is healthy on return.
        route: how the worker reaches Redis.
        visible: whether counters and log must show the fault.
        replaced: whether another command takes the place of what is missing from the start: only the log shows it.
        transitions: how often Redis may become unavailable; each may log two lines.
    """

    name: str
    begin: Action
    end: Action
    route: Route = "direct"
    visible: bool = True
    replaced: bool = False
    transitions: float = 1


async def no_action(env: Environment) -> None:
    """The fault ends by itself, or the worker repairs it."""


async def stop_background(env: Environment) -> None:
    await env.stop_background()


# -- the server ----------------------------------------------------------------------------------------------------


async def stop(env: Environment) -> None:
    env.server.pause()


async def resume(env: Environment) -> None:
    env.server.resume()


async def kill(env: Environment) -> None:
    await asyncio.to_thread(env.server.kill)


async def restart_loading(env: Environment) -> None:
    """Restart with more than a second of LOADING: a dump of 23 MB and a delay at each key."""
    server = env.server
    users = server.directory / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser {WORKER} on >{PASSWORD} ~* &* +@all\n")
    await env.pipeline(*(("SETRANGE", f"ballast:{number}", 1 << 16, "x") for number in range(350)))
    await asyncio.to_thread(server.stop, save=True)
    server.args += ["--key-load-delay", "4000", "--aclfile", str(users)]
    loaded = env.run_in_background(asyncio.to_thread(server.start))
    while not loaded.done():
        try:
            await env.cli("PING")
        except RedisReplyError:  # LOADING
            return
        except OSError:
            await asyncio.sleep(0.005)


async def wait_until_loaded(env: Environment) -> None:
    while True:
        try:
            await env.cli("PING")
            return
        except (RedisReplyError, OSError):
            await asyncio.sleep(0.005)


async def restore_old_dump(env: Environment) -> None:
    """Restore a dump that lacks the writes of the last 200 ms."""
    server = env.server
    dump = await asyncio.to_thread(server.dump)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(server.kill)
    (server.directory / "dump.rdb").write_bytes(dump)


async def restart(env: Environment) -> None:
    await asyncio.to_thread(env.server.start)
    await env.grant_worker_access()


async def become_replica(env: Environment) -> None:
    await env.cli("REPLICAOF", "127.0.0.1", "1")


async def become_primary(env: Environment) -> None:
    await env.cli("REPLICAOF", "NO", "ONE")


async def fill_memory(env: Environment) -> None:
    await env.pipeline(("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", "1"))


async def restore_memory(env: Environment) -> None:
    await env.stop_background()
    await env.pipeline(("CONFIG", "SET", "maxmemory", "0"), ("CONFIG", "SET", "maxmemory-policy", "noeviction"))


async def evict(env: Environment) -> None:
    """Write continuously beyond maxmemory."""
    used = int(
        next(line for line in (await env.cli("INFO", "memory")).splitlines() if "used_memory:" in line).partition(":")[
            2
        ]
    )
    await env.pipeline(
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-random"), ("CONFIG", "SET", "maxmemory", used + (1 << 20))
    )
    numbers = iter(range(1 << 30))

    async def flood() -> None:
        await env.pipeline(*(("SET", f"flood:{next(numbers)}", "x" * 20_000) for _ in range(50)))

    env.repeat(flood, 0.02)


async def change_password(env: Environment) -> None:
    await env.pipeline(("ACL", "SETUSER", WORKER, "resetpass", ">another"), ("CLIENT", "KILL", "USER", WORKER))


async def restore_password(env: Environment) -> None:
    await env.cli("ACL", "SETUSER", WORKER, "resetpass", f">{PASSWORD}")


def forbid(*rules: str) -> Action:
    async def begin(env: Environment) -> None:
        await env.cli("ACL", "SETUSER", WORKER, *rules)

    return begin


async def allow(env: Environment) -> None:
    await env.grant_worker_access()


async def kill_clients(env: Environment) -> None:
    env.repeat(lambda: env.cli("CLIENT", "KILL", "USER", WORKER), 0.08)


async def fill_connection_table(env: Environment) -> None:
    """Use up ``maxclients`` with idle clients, so that the worker is rejected."""
    idle_clients = await asyncio.to_thread(lambda: [env.server.connect() for _ in range(10)])
    operator = idle_clients[0]

    async def release_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ask(operator, ("CONFIG", "SET", "maxclients", "10000"))
            for connection in idle_clients:
                connection.close()

    env.run_in_background(release_when_cancelled())
    for connection in idle_clients:  # wait until the server has accepted it
        await asyncio.to_thread(ask, connection, ("PING",))
    ask(operator, ("CONFIG", "SET", "maxclients", len(idle_clients)), ("CLIENT", "KILL", "USER", WORKER))


# -- the network ---------------------------------------------------------------------------------------------------


async def close_port(env: Environment) -> None:
    await env.on_proxy(lambda proxy: (proxy.refuse(), proxy.reset_all()))


async def heal(env: Environment) -> None:
    await env.stop_background()
    await env.on_proxy(lambda proxy: proxy.heal())


async def reset(env: Environment) -> None:
    env.repeat(lambda: env.on_proxy(lambda proxy: proxy.reset_all()), 0.08)


async def black_hole(env: Environment) -> None:
    await env.on_proxy(lambda proxy: proxy.blackhole())


def delay(seconds: float) -> Action:
    async def begin(env: Environment) -> None:
        def set_delay(proxy: object) -> None:
            proxy.delay_to_server = proxy.delay_to_client = seconds  # type: ignore[attr-defined] # a Proxy

        await env.on_proxy(set_delay)

    return begin


def present(name: str, **options: bool) -> Action:
    async def begin(env: Environment) -> None:
        assert env.authority is not None
        foreign_authority = type(env.authority)(env.directory / "tls-of-another-authority")
        env.present((foreign_authority if name == "untrusted" else env.authority).issue(name, **options))
        await env.on_proxy(lambda proxy: proxy.reset_all())

    return begin


# -- the data ------------------------------------------------------------------------------------------------------


def corrupt(command: str, *arguments: str) -> Action:
    """Replace every key that the worker reads by executing ``command`` on it."""

    async def begin(env: Environment) -> None:
        for key in env.keys:
            await env.replace(key, command, *arguments)

    return begin


async def cut_short(env: Environment) -> None:
    """Truncate a two-byte character, and a JSON document."""
    await env.pipeline(*(("SET", key, b"Name: Zo\xc3") for key in env.keys))
    await env.cli("SET", keys.greeting_instructions(USER), '{"opening": "follow_up", "last_s')


async def oversize(env: Environment) -> None:
    for key in env.keys:
        await env.replace(key, "SETRANGE", HUNDRED_MB, "x")


async def wait_until_oversize_removed(env: Environment) -> None:
    """Wait until the worker has removed the oversize values; until then the server is busy copying them."""

    async def removed() -> bool:
        return not any([await env.cli("STRLEN", key) >= HUNDRED_MB for key in env.keys])

    await until(removed, 5.0)


async def flush_all(env: Environment) -> None:
    env.repeat(lambda: env.cli("FLUSHALL"), 0.03)


async def flush_scripts(env: Environment) -> None:
    env.repeat(lambda: env.cli("SCRIPT", "FLUSH"), 0.03)


FAULTS = (
    Fault("port closed", close_port, heal, "proxy"),
    Fault("connection reset", reset, heal, "proxy", transitions=math.inf),
    Fault("server stopped (SIGSTOP)", stop, resume),
    Fault("killed, restarted empty", kill, restart),
    Fault("restarted, LOADING", restart_loading, wait_until_loaded),
    Fault("restored, old dump", restore_old_dump, restart),
    Fault("READONLY replica", become_replica, become_primary),
    Fault("OOM, noeviction", fill_memory, restore_memory),
    Fault("eviction under load", evict, restore_memory, visible=False),
    Fault("wrong password", change_password, restore_password),
    Fault("NOPERM everything", forbid("-@all"), allow),
    Fault("NOPERM GET", forbid("-get"), allow),
    Fault("NOPERM SET", forbid("-set"), allow),
    Fault("NOPERM EVALSHA", forbid("-evalsha"), allow, replaced=True),
    Fault("NOPERM UNLINK", forbid("-unlink"), allow, replaced=True),
    Fault("NOPERM CLIENT", forbid("-client"), allow, visible=False),
    Fault("NOPERM keys", forbid("resetkeys", "~other:*"), allow),
    Fault("TLS untrusted", present("untrusted"), present("good"), "tls"),
    Fault("TLS expired", present("expired", expired=True), present("good"), "tls"),
    Fault("wrong type", corrupt("RPUSH", "not", "a", "string"), no_action),
    Fault("value cut short", cut_short, no_action, visible=False),
    Fault("reply of 100 MB", oversize, wait_until_oversize_removed, transitions=6),
    Fault("FLUSHALL", flush_all, stop_background, visible=False),
    Fault("SCRIPT FLUSH", flush_scripts, stop_background, visible=False),
    Fault("slow link, 50 ms", delay(0.05), delay(0.0), "proxy"),
    Fault("slow link, 15 ms", delay(0.015), delay(0.0), "proxy", visible=False),
    Fault("black hole", black_hole, heal, "proxy"),
    Fault("CLIENT KILL", kill_clients, stop_background, transitions=math.inf),
    Fault("connection table full", fill_connection_table, stop_background),
)
