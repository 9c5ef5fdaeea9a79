"""The ``companion`` command line.

A later command is a function with ``@app.command()`` in :func:`make_app`. What a command needs is imported inside it,
so that ``companion --help`` stays quick. Annotations are not strings here (no ``from __future__``): typer evaluates
those, and would look for the functions' local names among the module's.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from typer import Argument, Context, Exit, Option, Typer

_T = TypeVar("_T")
_PACKAGE: Final = Path(__file__).parent
MIGRATIONS: Final = (_PACKAGE / "migrations", _PACKAGE.parent / "supabase" / "migrations")
"""Where the SQL is: package data in a wheel, the repository's own folder otherwise."""

CLI_FILES: Final = {
    "config.toml": (
        "# The Supabase CLI pushes the migrations beside this file; every other setting is the project's own.\n"
        'project_id = "companion"\n'
    ),
    ".gitignore": "# What the Supabase CLI writes\n.branches\n.temp\n",
}
"""What the Supabase CLI wants beside the migrations, as in the repository."""

WORKER_COMMANDS: Final = {
    "dev": "Run a worker for your LiveKit project, for development.",
    "start": "Run a worker for your LiveKit project, for production.",
    "connect": "Run a worker for one room of your LiveKit project.",
}
"""Commands of LiveKit's own command line; it reads their options itself."""


def make_app(version: str, run_worker: Callable[[], None]) -> Typer:
    """Build the command line.

    Args:
        version: what ``--version`` prints.
        run_worker: hands ``sys.argv`` to LiveKit's command line and does not return before the worker has ended.
    """
    app = Typer(name="companion", no_args_is_help=True, add_completion=False, rich_markup_mode=None)

    def print_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"companion {version}")
            raise Exit

    version_option = Option("--version", callback=print_version, is_eager=True, help="Print the version.")

    @app.callback()
    def companion(show_version: Annotated[bool, version_option] = False) -> None:
        """A LiveKit voice agent that remembers its callers."""

    @app.command()
    def migrations(directory: Annotated[Path, Argument(help="Where to write them; made if it is missing.")]) -> None:
        """Write the SQL migrations for Supabase, for the SQL editor or (in supabase/migrations) `supabase db push`."""
        try:
            typer.echo(_write_migrations(directory))
        except OSError as problem:
            typer.echo(f"companion: no migration was written: {problem}", err=True)
            raise Exit(1) from None

    user_argument = Argument(metavar="USER", help="The user's id, or their identity.")

    @app.command()
    def history(user: Annotated[str, user_argument]) -> None:
        """Show the versions of USER's profile, the newest first. Each is kept for 30 days after it was replaced."""
        from .history import history

        typer.echo(_outcome(history(_user_id(user))))

    @app.command()
    def restore(
        user: Annotated[str, user_argument],
        version: Annotated[int, Argument(help="Its number, as `companion history` shows it.")],
    ) -> None:
        """Make an earlier VERSION USER's profile again."""
        from .history import restore

        if not _outcome(restore(_user_id(user), version)):
            typer.echo(f"companion: there is no version {version} of {user}", err=True)
            raise Exit(1)
        typer.echo(f"Version {version} is the profile of {user} again.")

    @app.command()
    def forget(
        user: Annotated[str, user_argument],
        yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Erase everything that is kept of USER: in the database, in Redis, and on this machine. It asks first."""
        from .person import forget, known_things

        if not yes:
            known = _outcome(known_things(user)) or "nothing is known"
            typer.confirm(f"Erase everything that is kept of {user} ({known})? It cannot be undone.", abort=True)
        if not _outcome(forget(user)):
            typer.echo(
                f"companion: {user} is not erased everywhere yet: the database or Redis did not answer, or another "
                "worker's Redis has to be cleared. A running worker or the next start completes it.",
                err=True,
            )
            raise Exit(1)
        typer.echo(f"Everything that was kept of {user} is erased.")

    @app.command()
    def export(
        user: Annotated[str, user_argument],
        file: Annotated[Path | None, Argument(help="Where to write it; the terminal if it is missing.")] = None,
    ) -> None:
        """Write everything that is kept of USER as JSON."""
        from .person import export

        text = _outcome(export(user))
        if file is None:
            typer.echo(text)
            return
        try:
            with open(file, "w", encoding="utf-8", opener=_private) as output:
                output.write(f"{text}\n")
        except OSError as problem:
            typer.echo(f"companion: nothing was written: {problem}", err=True)
            raise Exit(1) from None

    # "--help" behind one of these is LiveKit's to answer: it knows the options.
    theirs = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    def run(_: Context) -> None:
        run_worker()

    extra = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(context_settings=extra)
    def console(
        text: Annotated[bool, Option("--text", help="By typing: the default.")] = False,
        audio: Annotated[bool, Option("--audio", help="With microphone and loudspeaker.")] = False,
        log_level: Annotated[str, Option("--log-level", help="From which level on the log is shown.")] = "WARN",
    ) -> None:
        """Talk to the companion in this terminal, or through a pipe."""
        run_worker()  # which reads the options itself, as the command line has them

    for name, text in WORKER_COMMANDS.items():
        app.command(name, help=text, context_settings=theirs, add_help_option=False)(run)
    return app


def _outcome(work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` returns; an error of the settings or the store ends the command with one line."""
    from .settings import SettingsError
    from .store import StoreError

    try:
        return asyncio.run(work)
    except (SettingsError, StoreError) as problem:
        typer.echo(f"companion: {problem}", err=True)
        raise Exit(1) from None


def _user_id(given: str) -> str:
    from .person import user_id

    return user_id(given)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_migrations(directory: Path) -> str:
    """Copy what is missing in ``directory``; the report.

    Raises:
        OSError: a file cannot be written, or one of that name is there with another content.
    """
    source = next(folder for folder in MIGRATIONS if folder.is_dir())
    files = {path.name: path.read_bytes() for path in sorted(source.glob("*.sql"))}
    directory.mkdir(parents=True, exist_ok=True)
    there = {name for name in files if (directory / name).exists()}
    different = sorted(name for name in there if (directory / name).read_bytes() != files[name])
    if different:
        # A migration that a database has seen must not change under its name.
        raise FileExistsError(f"{directory / different[0]} is there with another content")
    missing = files.keys() - there
    for name in sorted(missing):
        (directory / name).write_bytes(files[name])
    folder = directory.absolute().parent
    if (folder.name, directory.name) == ("supabase", "migrations"):
        for name, text in CLI_FILES.items():
            if not (folder / name).exists():
                (folder / name).write_text(text, encoding="utf-8")
    return f"{len(missing)} written to {directory}, {len(there)} were there already. Apply them in order."
