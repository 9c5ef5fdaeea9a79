"""What tests/plugin.py asks of every module, and what it does for serial tests, in pytest runs of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import plugin
from tests.real.redis import redis_server
from tests.scheduling import PLAN, SlowFirstHeldLast

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[1]
# Each notes when it ran, by the one clock that all processes share.
TIMED = """
import json, os, time, uuid
import pytest

pytestmark = pytest.mark.unit

@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "kind", ["parallel", *(pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("timed", "serial"))]
)
def test_it(kind, number):
    began = time.monotonic()
    time.sleep(0.1)
    with open(os.path.join(os.path.dirname(__file__), f"{kind}-{number}"), "w") as file:
        json.dump([began, time.monotonic()], file)
"""


MODULES = {
    "test_without.py": "import pytest\ndef test_nothing(): pass\n",
    "test_two.py": "import pytest\npytestmark = [pytest.mark.unit, pytest.mark.soak]\ndef test_nothing(): pass\n",
    "test_unknown.py": "import pytest\npytestmark = pytest.mark.fast\ndef test_nothing(): pass\n",
    "test_one.py": "import pytest\npytestmark = pytest.mark.unit\ndef test_nothing(): pass\n",
    "test_process.py": (
        "import pytest, subprocess, sys\npytestmark = pytest.mark.unit\n"
        "def test_it():\n    subprocess.run([sys.executable, '-c', ''])\n"
    ),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One pytest run over the modules of ``folder`` alone, with this project's settings."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.plugin", "-p", "no:cacheprovider", "-rA"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module", params=[[], ["-n", "2"]], ids=["one process", "two workers"])
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run over all of ``MODULES`` says: one run, because each costs a second."""
    folder = tmp_path_factory.mktemp("modules")
    for name, source in MODULES.items():
        (folder / name).write_text(source)
    done = run(folder, "--continue-on-collection-errors", *request.param)
    assert done.returncode == 1, done.stdout
    return done.stdout


def outcomes_of(module: str, said: str) -> set[str]:
    """What the summary says of a module's collection, or else of its tests."""
    return set(re.findall(rf"(?m)^([A-Z]+) \S*{module}\b", said))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("test_without.py", f"test_without.py has 0 categories and {plugin.HINT}"),
        ("test_two.py", f"test_two.py has 2 categories and {plugin.HINT}"),
        ("test_unknown.py", "'fast' not found in `markers` configuration option"),
    ],
    ids=["no category", "two", "an unknown one"],
)
def test_a_module_without_one_category_is_not_collected(said: str, module: str, says: str) -> None:
    assert says in said
    assert outcomes_of(module, said) == {"ERROR"}


def test_a_module_with_one_category_is_collected(said: str) -> None:
    assert outcomes_of("test_one.py", said) == {"PASSED"}


def test_a_unit_test_starts_no_process(said: str) -> None:
    assert outcomes_of("test_process.py", said) == {"FAILED"}
    assert "a unit test starts no process" in said


def test_the_summary_names_the_servers_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    reporter: Any = SimpleNamespace(write_line=lines.append)
    monkeypatch.setattr(redis_server, "installed_servers", lambda: [binary for binary in servers if "6" not in binary])
    monkeypatch.setattr(redis_server, "server_name", str)
    servers = ["Valkey 9", "Redis 6", "Redis 8", "Redis 7"]
    plugin.pytest_terminal_summary(reporter)
    assert lines == ["not on this machine, and so not tested: Redis 6"]


def test_a_serial_test_runs_alone_and_timed_ones_four_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "test_turns.py").write_text(TIMED)
    done = run(tmp_path, "-n", "5", "--dist", "worksteal")
    assert "15 passed" in done.stdout, done.stdout
    times = {
        kind: [tuple(map(float, path.read_text().strip("[]").split(","))) for path in tmp_path.glob(f"{kind}-*")]
        for kind in ("serial", "timed", "parallel")
    }
    assert [len(some) for some in times.values()] == [5, 5, 5]

    def beside(span: tuple[float, ...], kind: str) -> int:
        """How many of a kind ran at some moment of a test, itself aside."""
        (began, ended), others = span, [other for other in times[kind] if other != span]
        return sum(began < other_end and other_began < ended for other_began, other_end in others)

    assert not any(beside(span, kind) for span in times["serial"] for kind in times)
    assert not any(beside(span, "parallel") for span in times["timed"])
    began = [span[0] for span in times["timed"]]
    at_once = [sum(other[0] <= moment < other[1] for other in times["timed"]) for moment in began]
    assert max(at_once) <= 4


class Worker:
    """One of pytest-xdist's workers, as its scheduler sees it. One that has a single test waits for more to do."""

    def __init__(self, scheduler: Any, names: list[str]) -> None:
        self.scheduler, self.shutting_down = scheduler, False
        self.gateway = SimpleNamespace(id=str(id(self)))
        self.left: dict[str, list[int]] = {}
        scheduler.add_node(self)
        scheduler.add_node_collection(self, names)

    def send_runtest_some(self, indices: list[int]) -> None:
        pending = self.scheduler.node2pending.values()
        for kind, first in (("timed", 20), ("serial", 25)):
            if any(first <= index < first + 5 for index in indices):
                self.left.setdefault(kind, [sum(index < first for index in indices) for indices in pending])

    def send_steal(self, indices: list[int]) -> None:
        self.stolen = indices

    def run_one(self) -> None:
        mine = self.scheduler.node2pending[self]
        if len(mine) > 1:
            self.scheduler.mark_test_complete(self, mine[0])
        if (asked := self.scheduler.steal_requested_from_node) is not None:
            self.scheduler.remove_pending_tests_from_node(asked, asked.stolen)

    def shutdown(self) -> None:
        self.shutting_down = True


def test_timed_and_then_serial_tests_are_handed_out_when_nothing_else_is_left(tmp_path: Path) -> None:
    names = [
        f"{kind} {number}" for kind, most in (("parallel", 20), ("timed", 5), ("serial", 5)) for number in range(most)
    ]
    plan = {"slow": [names[10:13], names[13:15]], "held": [names[20:25], names[25:]]}
    (tmp_path / PLAN).write_text(json.dumps(plan))
    factory = SimpleNamespace(getbasetemp=lambda: tmp_path)
    config: Any = SimpleNamespace(_tmp_path_factory=factory, getvalue=lambda name: ["popen"] * 2)
    scheduler: Any = SlowFirstHeldLast(config, None)
    slow, fast = Worker(scheduler, names), Worker(scheduler, names)
    scheduler.schedule()
    assert [scheduler.node2pending[worker][:3] for worker in (slow, fast)] == [[10, 11, 12], [13, 14, 7]]
    for _ in range(40):
        for worker in (slow, fast, fast, fast):
            worker.run_one()
    left = {kind: [worker.left[kind] for worker in (slow, fast) if kind in worker.left] for kind in ("timed", "serial")}
    assert all(max(each) <= 2 for kind in left for each in left[kind]), left
    assert all(left.values()), left
    assert sum(map(len, scheduler.node2pending.values())) == 2  # each keeps its last until it is shut down
    assert slow.shutting_down
    assert fast.shutting_down
