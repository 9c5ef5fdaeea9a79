"""The stores under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from companion.store import SqliteStore, Store, SupabaseStore
from tests.real.supabase.postgres import Postgres
from tests.real.supabase.postgrest import PostgREST


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def databases(postgres: Postgres) -> dict[bool, str]:
    """New databases with a project's strict (False) and its former, open default grants (True)."""
    return {flag: await postgres.create_database(open_by_default=flag) for flag in (False, True)}


@pytest.fixture
async def api(project: str) -> AsyncIterator[PostgREST]:
    async with PostgREST(project) as server:
        yield server


@pytest.fixture
async def supabase_store(api: PostgREST) -> AsyncIterator[SupabaseStore]:
    store = SupabaseStore(api.url, api.secret_key)
    yield store
    await store.close()


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "home" / "companion.db")
    yield store
    await store.close()


@pytest.fixture(params=["sqlite", "supabase"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(f"{request.param}_store")
