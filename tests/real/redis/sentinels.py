"""Starts a primary, its replica, and three Sentinels that know one another from the start."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.real.redis.redis_server import RedisServer, unused_port
from tests.real.redis.resp import Part

MASTER: Final = "callers"
SERVER_PASSWORD: Final = "of the server"
SENTINEL_PASSWORD: Final = "of the sentinel"
ASKER: Final = ("asker", "asks")
"""The user as whom clients ask the Sentinels, with the rights that docs/redis.md names, and the password."""
ASKED: Final = ("+sentinel|master", "+sentinel|get-master-addr-by-name")
DOWN_AFTER_MS: Final = 500


class Sentinel(RedisServer):
    """One Sentinel. It is configured in a file, which it rewrites."""

    def _settings(self) -> list[str]:
        return [str(self.directory / "sentinel.conf"), "--sentinel"]


@dataclass
class Watched:
    """Two servers, of which Sentinels make one the primary."""

    servers: list[RedisServer]
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        user, password = ASKER
        as_asker = f"sentinel_username={user}&sentinel_password={password}"
        return f"redis+sentinel://:{SERVER_PASSWORD.replace(' ', '%20')}@{hosts}/{MASTER}?{as_asker}"

    def cli(self, *command: Part) -> Any:
        """As the primary's."""
        return self.primary().cli(*command)

    def many(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """As the primary's."""
        return self.primary().many(commands)

    def calls(self, command: str) -> int:
        """As the primary's."""
        return self.primary().calls(command)

    def set_epoch(self) -> None:
        """As the primary's."""
        self.primary().set_epoch()

    def primary(self) -> RedisServer:
        """The server that the first Sentinel names."""
        _, port = self.sentinels[0].cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def replica(self) -> RedisServer:
        return next(server for server in self.servers if server is not self.primary())

    def ready(self) -> bool:
        """Whether the Sentinels agree on the primary and know a replica that follows it."""
        primary, link = self.primary(), self.replica().cli("INFO", "replication")
        views = [dict(_pairs(one.cli("SENTINEL", "MASTER", MASTER))) for one in self.sentinels]
        good = ("master", "2", "1", str(primary.port))
        return (
            f"master_port:{primary.port}" in link
            and all(
                (view["flags"], view["num-other-sentinels"], view["num-slaves"], view["port"]) == good
                and [
                    replica["flags"] for replica in map(dict, map(_pairs, sentinel.cli("SENTINEL", "REPLICAS", MASTER)))
                ]
                == ["slave"]
                for view, sentinel in zip(views, self.sentinels, strict=True)
            )
            and "master_link_status:up" in link
        )


def _pairs(flat: list[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)


@contextmanager
def watched(directory: Path) -> Iterator[Watched]:
    """The servers and the Sentinels, once a failover can succeed."""
    with ExitStack() as stack:
        credentials = ["--masterauth", SERVER_PASSWORD]
        primary = RedisServer(directory / "one", password=SERVER_PASSWORD, args=credentials)
        stack.enter_context(primary)
        follows = ["--replicaof", "127.0.0.1", str(primary.port)]  # Redis 6 takes no two words for one
        replica = RedisServer(directory / "two", password=SERVER_PASSWORD, args=credentials + follows)
        stack.enter_context(replica)
        ports = [unused_port() for _ in range(3)]
        trio = [_sentinel(directory / f"sentinel{port}", port, primary, replica, ports) for port in ports]
        for sentinel in trio:
            stack.enter_context(sentinel)
        both = Watched([primary, replica], trio)
        give_up = time.monotonic() + 20
        while not both.ready():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield both


def _sentinel(directory: Path, port: int, primary: RedisServer, replica: RedisServer, ports: list[int]) -> Sentinel:
    directory.mkdir(parents=True)
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        f'requirepass "{SENTINEL_PASSWORD}"',
        f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
        "user {} on >{} -@all +auth {} +subscribe resetchannels &+switch-master".format(*ASKER, " ".join(ASKED)),
        f"sentinel myid {port:040d}",
        f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} 2",
        f'sentinel auth-pass {MASTER} "{SERVER_PASSWORD}"',
        f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {MASTER} 3000",
        f"sentinel known-replica {MASTER} 127.0.0.1 {replica.port}",
        *(f"sentinel known-sentinel {MASTER} 127.0.0.1 {other} {other:040d}" for other in ports if other != port),
    ]
    (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
    return Sentinel(directory, port=port, password=SENTINEL_PASSWORD)
