"""The ``companion`` command: the companion's own commands, and above them the worker's."""

import sys

from .companion.console.start import begin, text_by_default


def run_worker() -> None:
    """Run LiveKit's command line for the companion's worker, as ``python agent.py`` does in the repository."""
    from .agent import main

    main()


def main() -> None:
    """Run the ``companion`` command. A console shows its title before anything else is imported."""
    sys.argv = text_by_default(sys.argv)
    begin(sys.argv)
    from . import __version__
    from .companion.cli import make_app

    make_app(__version__, run_worker)(prog_name="companion")


if __name__ == "__main__":
    main()
