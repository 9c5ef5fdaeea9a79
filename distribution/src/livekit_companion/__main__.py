"""The ``companion`` command: the companion's own commands, and above them the worker's."""

from . import __version__
from .companion.cli import make_app


def run_worker() -> None:
    """Run LiveKit's command line for the companion's worker, as ``python agent.py`` does in the repository."""
    from .agent import main

    main()


app = make_app(__version__, run_worker)

if __name__ == "__main__":
    app(prog_name="companion")
