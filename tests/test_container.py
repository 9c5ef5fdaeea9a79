"""The container's files, as far as they can be checked without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from livekit.agents.worker import DRAIN_TIMEOUT

from tests.documentation.test_configuration import VARIABLES
from tests.documentation.test_readme import README
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent
DOCKERFILE = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", "")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
WORKER, REDIS = COMPOSE["services"]["worker"], COMPOSE["services"]["redis"]


def said(instruction: str) -> list[str]:
    """The arguments of every instruction of this name, in order."""
    return [text.strip() for text in re.findall(rf"(?m)^{instruction}\s+(.*)$", DOCKERFILE)]


def copied() -> list[str]:
    """Files and folders that COPY adds to the image, at unchanged paths."""
    sources = []
    for line in said("COPY"):
        *names, target = line.split()
        assert target in ("./", *names), "COPY would put it somewhere else"
        sources += names
    return sources


def ignored(path: str) -> bool:
    """Whether .dockerignore excludes this file: the last line that matches it or a parent folder decides."""
    folders = [path.rsplit("/", up)[0] for up in range(path.count("/") + 1)]
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!").rstrip("/")
        if not pattern or line.startswith("#"):
            continue
        regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, name) for name in folders):
            out = not line.startswith("!")
    return out


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that COPY and .dockerignore let through."""
    folder = tmp_path_factory.mktemp("image")
    for name in copied():
        source = ROOT / name
        for path in source.rglob("*") if source.is_dir() else [source]:
            inside = path.relative_to(ROOT)
            if path.is_file() and not ignored(inside.as_posix()):
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / inside)
    return folder


def test_what_is_copied_is_there_and_not_ignored(image: Path) -> None:
    assert [name for name in copied() if not (image / name).exists()] == []


@pytest.mark.parametrize(
    "path", [".env", "cache/.env", ".git/config", ".companion/companion.db", "tools/__pycache__/a.pyc", "tests/wait.py"]
)
def test_what_stays_outside(path: str) -> None:
    assert ignored(path)


def test_requirements_come_before_the_code() -> None:
    steps = re.findall(r"(?m)^COPY \S+|\bpip install\b", DOCKERFILE)
    assert steps[:3] == ["COPY requirements.txt", "pip install", "COPY agent.py"]


def test_the_tested_versions_are_installed_and_no_private_server() -> None:
    assert " -c constraints.txt -r requirements.txt " in DOCKERFILE
    (pattern,) = re.findall(r"sed -i '/(.*?)/d' requirements.txt", DOCKERFILE)
    assert len(re.findall(rf"(?m){pattern}.*$", (ROOT / "requirements.txt").read_text())) == 1


def test_it_does_not_run_as_root() -> None:
    (user,) = said("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert "RUN" not in DOCKERFILE.partition("\nUSER")[2]


def test_it_starts_as_the_readme_says() -> None:
    (command,) = re.findall(r"(?m)^CMD (.*)$", DOCKERFILE)
    assert f"`{' '.join(json.loads(command))}`" in README


def test_what_is_copied_is_all_the_worker_needs_and_its_health_is_asked_at_its_port(image: Path) -> None:
    code = "import agent; print(agent.server._port.prod_default)"
    port = subprocess.check_output([sys.executable, "-c", code], cwd=image, text=True).strip()
    assert said("EXPOSE") == [port]
    (check,) = said("HEALTHCHECK")  # tests/worker/test_worker.py runs it against a worker
    assert f"'127.0.0.1', {port}," in check


def test_every_variable_is_known() -> None:
    names = {name for line in said("ENV") for name in re.findall(r"(\w+)=", line)}
    assert names | WORKER["environment"].keys() <= {"PYTHONUNBUFFERED", *(its.name for _, its in VARIABLES)}


def test_memories_and_cache_outlive_their_containers() -> None:
    (folder,) = json.loads(said("VOLUME")[0])
    assert f"COMPANION_HOME={folder}" in said("ENV")[0]
    assert WORKER["environment"]["COMPANION_HOME"] == folder
    assert WORKER["volumes"] == [f"memories:{folder}"]
    assert REDIS["volumes"] == ["cache:/data"]  # where the image of Redis keeps its files
    assert COMPOSE["volumes"].keys() == {"memories", "cache"}


def test_a_conversation_has_the_time_that_livekit_gives_it() -> None:
    grace = re.fullmatch(r"(\d+)m", COMPOSE["services"]["worker"]["stop_grace_period"])
    assert grace
    assert int(grace[1]) * 60 > DRAIN_TIMEOUT


def test_redis_is_for_the_worker_alone() -> None:
    assert WORKER["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    assert WORKER["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert "healthcheck" in REDIS
    assert not any("ports" in service or "network_mode" in service for service in COMPOSE["services"].values())


def test_a_real_redis_takes_these_settings(tmp_path: Path) -> None:
    program, *arguments = REDIS["command"]
    assert program == "redis-server"
    with RedisServer(tmp_path / "redis", args=arguments) as server:
        kept = server.cli("CONFIG", "GET", "*")
        settings = dict(zip(kept[::2], kept[1::2], strict=True))
    assert (settings["appendonly"], settings["save"]) == ("yes", "")
    assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(256 << 20), "volatile-lru")


def test_no_env_file_is_needed() -> None:
    assert WORKER["env_file"] == [{"path": ".env", "required": False}]
    needed = {name for name, value in WORKER["environment"].items() if ":?" in value}
    assert needed == {"LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"}
