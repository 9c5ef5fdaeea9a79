"""The table of kinds of data is complete and agrees with itself. What it deletes: ``test_change_listener.py``."""

from __future__ import annotations

from typing import get_args

import pytest

from cache import keys
from companion.caching.cached_data import CACHED_DATA, MAX_LIFETIME, MEMORY, TURN, CachedData
from companion.caching.read_through import read_user_data
from companion.store import Context, DataKind

pytestmark = pytest.mark.unit
CONTEXT = Context(profile=None, turns=[], summary=None, state=None)


def test_every_kind_of_data_has_an_entry() -> None:
    assert set(CACHED_DATA) == set(get_args(DataKind))


@pytest.mark.parametrize("kind", CACHED_DATA)
def test_a_write_makes_its_own_key_stale(kind: str) -> None:
    data = CACHED_DATA[kind]
    assert data.key("ada") in data.stale_keys("ada")


@pytest.mark.parametrize("kind", CACHED_DATA)
def test_the_greeting_follows_from_what_it_is_made_of(kind: str) -> None:
    assert keys.greeting_instructions("ada") in CACHED_DATA[kind].stale_keys("ada")


@pytest.mark.parametrize("kind", ["profile", "summary", "state"])
def test_where_the_store_has_nothing_the_value_is_empty(kind: str) -> None:
    data = CACHED_DATA[kind]
    assert data.from_context is not None
    assert data.from_context(CONTEXT) == data.value_type()


def test_no_cached_value_outlives_its_ttl_and_a_day() -> None:
    assert MAX_LIFETIME == 25 * 3600  # docs/security.md names the hours


@pytest.mark.parametrize("data", [TURN, MEMORY])
async def test_what_is_not_a_part_of_the_context_is_not_read_from_it(data: CachedData[object]) -> None:
    async def context(_: str) -> Context:
        return CONTEXT

    with pytest.raises(ValueError, match="not a part of the context"):
        await read_user_data(data, "ada", context)
