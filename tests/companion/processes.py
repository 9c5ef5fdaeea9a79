"""Processes that tests start, forked from a server that has no threads and has the companion imported.

Forking the test run itself may deadlock the child, because the run has threads; Python 3.12 and later warn of it.
"""

from __future__ import annotations

from multiprocessing import forkserver, get_context

processes = get_context("forkserver")
# Imported once, by the server: the import takes a second.
processes.set_forkserver_preload(
    [
        "tests.companion.memory_worker",
        "tests.companion.outage_worker",
        "tests.soak.killed_worker",
        "tests.companion.store.test_sqlite",
        "tests.companion.store.test_sqlite_schema",
    ]
)


def ensure_fork_server() -> None:
    """Start the server, if it does not run."""
    forkserver.ensure_running()


def stop_fork_server() -> None:
    """Stop the server, which would otherwise end only after this process, and slowly."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # private: as Python's own tests do it
