"""The wheel in use: beside a project that has its own ``agent.py``, ``cache.py``, ``companion/`` and ``tools/``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.documentation.pages import block_with
from tests.packaging.conftest import ROOT, Installation
from tests.real.redis.redis_server import RedisServer

pytestmark = [pytest.mark.console, pytest.mark.timeout(180)]

THE_PROJECTS_OWN = """
import agent, cache, companion, tools
assert {module.OWNER for module in (agent, cache, companion, tools)} == {"the project"}
"""

LOADS_LITTLE = """
import sys
{imports}
loaded = {{"livekit.agents", "supabase", "openai"}} & set(sys.modules)
assert not loaded, loaded
"""

CONVERSATION = """
import asyncio, json
from dataclasses import dataclass

from livekit.agents import Agent, AgentSession
from conversation import ObedientLLM
from livekit_companion import CacheTools, close_redis_cache, get_redis_cache


@dataclass
class Caller:
    user_id: str


@dataclass
class Userdata:
    caller: Caller


async def main():
    cache = await get_redis_cache()
    await cache.set("user:123:profile", "Name: Ada", ttl=60)
    session = AgentSession(
        llm=ObedientLLM(), vad=None, turn_handling={"turn_detection": None}, userdata=Userdata(Caller("123"))
    )
    answers = []
    async with session:
        await session.start(Agent(instructions="Be kind.", tools=[CacheTools()]))
        for tool in ("getRedisCacheStats {}", "clearUserCache {}"):
            result = await session.run(user_input=tool)
            result.expect.next_event().is_function_call(name=tool.partition(" ")[0])
            answers.append(json.loads(result.expect.next_event().is_function_call_output().event().item.output))
    await close_redis_cache()
    print(json.dumps(answers))


asyncio.run(main())
"""

PRELOADED = """
import multiprocessing, sys
import probe

if __name__ == "__main__":
    from livekit_companion.agent import server
    names = server._preload_modules
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(names)
    with context.Pool(1) as pool:
        print(*pool.apply(probe.loaded, (names,)))
"""

REGISTERED = """
import threading
from importlib import import_module, reload
from livekit.agents import Plugin

problems = []
threading.excepthook = lambda problem: problems.append(problem)
thread = threading.Thread(target=import_module, args=["livekit.plugins.companion"])
thread.start()
thread.join()
assert problems == [], problems
assert Plugin.registered_plugins == []  # the framework takes none there

import livekit_companion
from livekit.plugins import companion
reload(companion)
(plugin,) = Plugin.registered_plugins
assert (plugin.package, plugin.version) == ("livekit.plugins.companion", livekit_companion.__version__)
assert companion.CacheTools is livekit_companion.CacheTools
assert companion.__all__ == livekit_companion.__all__
assert not hasattr(companion, "nothing of ours")
"""


def readme(word: str) -> str:
    """The documented example with that word, as a user of the wheel writes it."""
    return block_with(word).replace("from cache import", "from livekit_companion.cache import")


def redis_environment(server: RedisServer) -> dict[str, str]:
    return {"REDIS_URL": server.url, "CACHE_DEADLINE_MS": "2000"}


def test_the_cache_example(installed: Installation, redis_server: RedisServer) -> None:
    script = f"{THE_PROJECTS_OWN}\n{readme('get_or_load')}\n"
    script += "import asyncio\nprint(asyncio.run(preferences('7')))\n" + LOADS_LITTLE.format(imports="")
    assert installed.python(script, **redis_environment(redis_server)) == "{'voice': 'warm'}\n"
    assert 3420 <= redis_server.cli("TTL", "user:7:settings") <= 3600


def test_names_at_the_top_load_no_more_than_they_need(installed: Installation) -> None:
    installed.python(LOADS_LITTLE.format(imports="from livekit_companion import RedisCache, keys"))


def test_every_public_name_is_at_the_top(installed: Installation) -> None:
    script = "import json, livekit_companion as ours\nfrom livekit_companion import cache, companion, tools\n"
    script += "assert all(getattr(ours, name) is not None for name in ours.__all__)\n"
    script += "assert {*ours.__all__} <= {*dir(ours)}\n"
    script += "print(json.dumps([ours.__all__, [*cache.__all__, *companion.__all__, *tools.__all__]]))"
    top, parts = json.loads(installed.python(script))
    plumbing = {"BackgroundTasks", "retrieve_exception", "variables"}  # what the companion shares with the cache
    assert set(top) == set(parts) - plumbing


def test_a_stock_agent_calls_the_tools(installed: Installation, redis_server: RedisServer) -> None:
    shutil.copy(ROOT / "tests" / "tools" / "conversation.py", installed.project)
    stats, cleared = json.loads(installed.python(CONVERSATION, **redis_environment(redis_server)))
    assert (stats["connected"], stats["status"]) == (True, "healthy")
    assert (cleared["success"], cleared["deleted_keys"]) == (True, 1)
    assert redis_server.cli("EXISTS", "user:123:profile") == 0


def test_the_forkserver_preloads_what_the_worker_names(installed: Installation) -> None:
    probe = "import sys\n\n\ndef loaded(names):\n    return [name for name in names if name in sys.modules]\n"
    (installed.project / "probe.py").write_text(probe)
    loaded = installed.python(PRELOADED).split()
    assert loaded == [
        "livekit_companion.companion.conversation.attach",
        "livekit_companion.companion.store.supabase.store",
        "livekit_companion.tools",
    ]


def test_the_plugin_registers_where_the_framework_allows_it(installed: Installation) -> None:
    installed.python(REGISTERED)


def test_the_framework_finds_the_plugin(installed: Installation) -> None:
    ran = installed.run("python", "-m", "livekit.agents", "download-files")
    assert ran.returncode == 0, ran.stderr
    assert "livekit.plugins.companion" in ran.stdout + ran.stderr


def test_the_command(installed: Installation) -> None:
    help_text = installed.run("companion", "--help").stdout
    commands = ("migrations", "history", "restore", "console", "dev", "start", "connect")
    assert all(f"\n  {name} " in help_text for name in commands)
    assert installed.run("companion").stderr.strip() == help_text.strip()
    shown = installed.run("companion", "--version").stdout
    metadata = "from importlib.metadata import version; print(version('livekit-companion'))"
    assert shown == f"companion {installed.python(metadata)}"


def test_migrations_are_written_and_never_overwritten(installed: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "migrations"
    ours = {path.name: path.read_bytes() for path in (ROOT / "supabase" / "migrations").glob("*.sql")}
    assert installed.run("companion", "migrations", folder).stdout.startswith(f"{len(ours)} written to {folder}, 0 ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ours
    first, second, *_ = sorted(ours)
    (folder / first).unlink()
    (folder / second).write_text("-- changed by its owner")
    refused = installed.run("companion", "migrations", folder)
    assert refused.returncode == 1
    assert refused.stderr == f"companion: no migration was written: {folder / second} is there with another content\n"
    assert not (folder / first).exists()
    (folder / second).unlink()
    assert installed.run("companion", "migrations", folder).stdout.startswith("2 written to ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ours


def test_without_extras(installed: Installation) -> None:
    # The worker starts, and sees what it cannot use: although the project has a folder of that name, which an import
    # takes for the package.
    assert installed.before_extras == (
        "companion: SUPABASE_URL is set, but the package supabase is not installed: "
        "pip install 'livekit-companion[supabase]'\n"
    )
