"""What holds for every test of the suite: a module says what kind of test it has, and tests of time run apart."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Never

import pytest

from tests.deployments import DEPLOYMENTS
from tests.real.redis.redis_server import installed_servers, missing_servers, server_name
from tests.scheduling import SlowFirstHeldLast, note_plan
from tests.turns import KINDS, Kind, kind_of, turn

CATEGORIES: Final = ("unit", "integration", "console", "worker", "faults", "isolation", "soak")
SLOW: Final = ("worker", "console")
"""Categories of which a test takes seconds."""
HINT: Final = (
    "needs exactly one category: add 'pytestmark = pytest.mark.unit' (or another of "
    f"{', '.join(CATEGORIES[1:])}) below its imports. tests/README.md says which."
)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail the collection of a module without a category.

    Not by a UsageError in ``pytest_collection_modifyitems``: pytest-xdist's workers would not pass its words on.
    """
    report = yield
    if isinstance(collector, pytest.Module) and report.passed:
        marked = [mark.name for mark in collector.iter_markers() if mark.name in CATEGORIES]
        if len(marked) != 1:
            report.outcome, report.result = "failed", []
            report.longrepr = f"{collector.path.name} has {len(marked)} categories and {HINT}"
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked ``every_server`` on each major version of Redis and Valkey that is installed.

    One that is marked ``every_deployment`` runs on a cluster and behind Sentinels too, if it uses the shared server.
    Not one that is marked ``one_server`` too: it waits for a timer of the cache, not for what a version does.
    """
    marked = metafunc.definition.get_closest_marker
    if marked("one_server") or "redis_binary" not in metafunc.fixturenames:
        return
    binaries = installed_servers() if marked("every_server") else ()
    params: list[Path | str | None] = [*binaries]
    shared = "_shared_redis" in metafunc.fixturenames and "own_redis" not in metafunc.fixturenames
    if marked("every_deployment") and shared and kind_of(metafunc.definition) == "ordinary":
        params = [*(binaries or [None]), *DEPLOYMENTS]
    if params:
        names = [server_name(each) if isinstance(each, Path) else each or "one server" for each in params]
        metafunc.parametrize("redis_binary", params, ids=names, indirect=True, scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the servers that tests marked ``every_server`` did not run on."""
    if missing := missing_servers():
        terminalreporter.write_line(f"not on this machine, and so not tested: {', '.join(missing)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for parallel runs: what takes longest, and shares a worker process or an installed wheel, comes
    first and stays together; timed tests come last, and behind them serial ones.
    """
    places = {item: (KINDS.index(kind := kind_of(item)), _slowness(item, kind)) for item in items}
    items.sort(key=places.__getitem__)
    if items and hasattr(items[0].config, "workerinput"):
        slow = [[item.nodeid for item in items if places[item] == (0, place)] for place in range(len(SLOW))]
        held = [[item.nodeid for item in items if places[item][0] == kind] for kind in range(1, len(KINDS))]
        note_plan(items[0].config, slow, held)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SlowFirstHeldLast | None:
    return SlowFirstHeldLast(config, log) if config.option.dist == "worksteal" else None


def _slowness(item: pytest.Item, kind: Kind) -> int:
    """The smallest number takes longest, and starts first."""
    if kind == "timed":
        return "postgres" not in getattr(item, "fixturenames", ())
    return next((place for place, name in enumerate(SLOW) if item.get_closest_marker(name)), len(SLOW))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With pytest-xdist, run a test when it may run beside what the other workers run.

    All this is outside of pytest-timeout's hook: waiting for other workers is not the test's time.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    # Beside the workers' own directories, and so of this run.
    with turn(kind_of(item), Path(item.config.option.basetemp).with_name("serial.lock")):
        return (yield)


@pytest.fixture(autouse=True)
def _no_process_in_a_unit_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are processes, too. One that other tests have started is no use to a unit test either."""

    def refuse(*_: object, **__: object) -> Never:
        raise AssertionError("a unit test starts no process: its module is of another category (tests/README.md)")

    if request.node.get_closest_marker("unit"):
        assert "_shared_redis" not in request.fixturenames, "a unit test has no server (tests/README.md)"
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
