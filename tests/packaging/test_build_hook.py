"""The build hook maps the imports it can, and refuses every other."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "distribution" / "build_hook.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "mapped"),
    [
        ("from cache import keys", "from livekit_companion.cache import keys"),
        ("from companion.store.base import Store", "from livekit_companion.companion.store.base import Store"),
        ("if x:\n    from  tools import (\n        CacheTools,\n    )", None),
        (
            "from agent import server  # from cache import x",
            "from livekit_companion.agent import server  # from cache import x",
        ),
        (
            '"""Docs.\n\n    from cache import keys\n"""',
            '"""Docs.\n\n    from livekit_companion.cache import keys\n"""',
        ),
        ('"""Docs: values\nfrom cache are old.\n"""', '"""Docs: values\nfrom cache are old.\n"""'),
        ("from caches import x", "from caches import x"),
        ("from .cache import x", "from .cache import x"),
        ("from redis.cache import x", "from redis.cache import x"),
        ("import redis.cache", "import redis.cache"),
        ('log = getLogger("cache")', 'log = getLogger("cache")'),
        ('database = home / "companion.db"', 'database = home / "companion.db"'),
        ('import_module(f"{__package__}.cache")', 'import_module(f"{__package__}.cache")'),
    ],
)
def test_what_is_mapped(hook: ModuleType, source: str, mapped: str | None) -> None:
    expected = source.replace("from  tools", "from  livekit_companion.tools") if mapped is None else mapped
    assert hook.mapped(source, "x.py", ROOT) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import cache",
        "import os, cache.keys",
        "import tools as t",
        "x = 1; from cache import keys",
        "try: from cache import keys\nexcept ImportError: pass",
        "from \\\n  cache import keys",
        'importlib.import_module("cache")',
        'import_module(name="companion.store")',
        'import_module(f"cache.{name}")',
        '__import__("tools")',
        'find_spec("agent")',
        'AgentServer(preload_modules=["companion", "tools"])',
        'MODULES = ("companion.store",)',
        'run([sys.executable, "-m", "cache.keys"])',
    ],
)
def test_what_is_refused(hook: ModuleType, source: str) -> None:
    with pytest.raises(hook.UnmappedImport, match=r"^x\.py:\d+: "):
        hook.mapped(source, "x.py", ROOT)
