"""The stores under test, and the real database behind one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from companion.store import SqliteStore, Store, SupabaseStore
from tests.real.postgres import Postgres
from tests.real.postgrest import PostgREST


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def project(postgres: Postgres) -> str:
    """The DSN of a database with all migrations applied. Tests share it: each uses users of its own."""
    return await postgres.create_database()


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


@pytest.fixture
def user() -> str:
    """A user whom no other test knows."""
    return str(uuid4())
