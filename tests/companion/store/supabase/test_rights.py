"""Every object of the migrations, and who may do what with it: exactly that, whatever a project grants by default.

An object that a migration adds must be named here, with its rights.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.real.supabase.postgres import connection

pytestmark = pytest.mark.integration
Rights = dict[str, str]
NONE: Rights = {}
WRITTEN_BY_THE_SERVICE = {"authenticated": "SELECT", "service_role": "DELETE INSERT SELECT UPDATE"}
WRITTEN_BY_TRIGGERS = {"authenticated": "SELECT", "service_role": "SELECT"}
RECORDED_BY_TRIGGERS = {"authenticated": "SELECT", "service_role": "DELETE SELECT"}
FOR_THE_SERVICE_TO_CLEAR = {"service_role": "DELETE SELECT"}
TABLES = {
    "companion_profiles": WRITTEN_BY_THE_SERVICE,
    "companion_turns": WRITTEN_BY_THE_SERVICE,
    "companion_memories": WRITTEN_BY_THE_SERVICE,
    "companion_summaries": WRITTEN_BY_THE_SERVICE,
    "companion_states": WRITTEN_BY_THE_SERVICE,
    "companion_openings": WRITTEN_BY_THE_SERVICE,
    "companion_versions": WRITTEN_BY_TRIGGERS,
    "companion_outbox": WRITTEN_BY_TRIGGERS,
    "companion_profile_versions": RECORDED_BY_TRIGGERS,
    "companion_changes": {"service_role": "SELECT"},
    "companion_removed_memories": FOR_THE_SERVICE_TO_CLEAR,
    "companion_forgotten": FOR_THE_SERVICE_TO_CLEAR,
    "companion_caches": FOR_THE_SERVICE_TO_CLEAR,
    "companion_erasures": NONE,
    "companion_erasure_key": NONE,
}
SEQUENCES = {
    "companion_turns_seq_seq": NONE,
    "companion_memories_seq_seq": NONE,
    "companion_profile_versions_version_seq": NONE,
    "companion_forgotten_number_seq": NONE,
}
# With a user's own data; row level security hides everybody else's.
FOR_USERS = {
    "companion_begin(text,integer,integer)",
    "companion_context(text,integer)",
    "companion_count(text,text)",
    "companion_fact_key(text)",
    "companion_last_turns(text,integer,integer)",
    "companion_last_turns_json(text,integer)",
    "companion_latest_summary(text)",
    "companion_open(text,integer,integer)",
    "companion_opening(text)",
    "companion_profile_versions_json(text,integer)",
    "companion_search(text,text,integer)",
    "companion_search_json(text,text,integer)",
    "companion_start(text,integer,integer)",
    "companion_words(text)",
}
FOR_THE_SERVICE = {
    "companion_changes_after(bigint,text,text,integer,integer)",
    "companion_claim_openings(text,double precision,integer)",
    "companion_changes_since(bigint,text,text,integer,integer)",
    "companion_erase(text,text)",
    "companion_erasure_delivered(text,bigint)",
    "companion_expire_turns(integer,integer)",
    "companion_export(text)",
    "companion_export_all(text)",
    "companion_forget(text,text)",
    "companion_forget_things(text,jsonb)",
    "companion_is_erased(text,bigint)",
    "companion_latest_erasure(double precision)",
    "companion_move(text[],text)",
    "companion_moved(text,bigint)",
    "companion_outbox_pending(integer,double precision)",
    "companion_outbox_recent(double precision,integer)",
    "companion_owed(integer,double precision)",
    "companion_owed_by(text,text[])",
    "companion_pending_erasures(double precision)",
    "companion_pending_erasures_json(double precision)",
    "companion_forgotten_json(text)",
    "companion_pending_json(integer,double precision)",
    "companion_profile_for_write(text,text)",
    "companion_register_cache(text,boolean)",
    "companion_restore_profile(text,bigint)",
    "companion_save_opening(text,bigint,jsonb,jsonb,text,timestamp with time zone)",
    "companion_settle(jsonb)",
    "companion_settle_in(jsonb,text)",
    "companion_swap_profile(text,text,text,timestamp with time zone)",
    "companion_write_profile(text,text,timestamp with time zone,text,text,text,boolean)",
    "companion_written(double precision,integer)",
    "companion_written_json(double precision,integer)",
}
# Triggers, and what other functions call.
INTERNAL = {
    "companion_activate()",
    "companion_add_profile_version(text,text,timestamp with time zone,text,text)",
    "companion_bump_version()",
    "companion_count_writes()",
    "companion_drop_openings()",
    "companion_forgotten_key(text,text)",
    "companion_keep_fact_once()",
    "companion_lines(text)",
    "companion_mentions(text,jsonb)",
    "companion_mentions_forgotten(text,text)",
    "companion_plain(text)",
    "companion_person(text)",
    "companion_record_profiles()",
    "companion_record_removed_facts()",
    "companion_refuse_erased()",
    "companion_refuse_forgotten()",
    "companion_said_again()",
    "companion_touch()",
    "companion_without_lines(text,text[])",
}
FUNCTIONS: dict[str, Rights] = {
    **{name: {"authenticated": "EXECUTE", "service_role": "EXECUTE"} for name in FOR_USERS},
    **{name: {"service_role": "EXECUTE"} for name in FOR_THE_SERVICE},
    **dict.fromkeys(INTERNAL, NONE),
}


@pytest.fixture(params=[False, True], ids=["closed by default", "open by default"])
async def db(databases: dict[bool, str], request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection]:
    async with connection(databases[request.param]) as superuser:
        yield superuser


async def rights(db: asyncpg.Connection, objects: str) -> dict[str, Rights]:
    """What each role may do with each of the objects, in alphabetical order.

    Args:
        db: a connection.
        objects: a query of names and access control lists, which are null for the built-in defaults.
    """
    found: dict[str, Rights] = {}
    # A right of PUBLIC (0) is everybody's. The owner's are the migrations' own.
    rows = await db.fetch(
        f"select o.name, r.rolname, string_agg(distinct a.privilege_type, ' ' order by a.privilege_type) as rights"
        f" from ({objects}) o (name, acl)"
        f" left join lateral aclexplode(o.acl) a on true"
        f" left join pg_roles r on a.grantee in (0, r.oid) and r.rolname in ('anon', 'authenticated', 'service_role')"
        f" group by 1, 2"
    )
    for name, role, privileges in rows:
        found.setdefault(name, {})
        if role is not None:
            found[name][role] = privileges
    return found


async def relations(db: asyncpg.Connection, kinds: str, default: str) -> dict[str, Rights]:
    """The rights on tables and the like, those on single columns included."""
    return await rights(
        db,
        f"select relname::text, coalesce(relacl, acldefault('{default}', relowner))"
        f" || (select coalesce(array_agg(l.one), '{{}}') from pg_attribute, unnest(attacl) as l (one)"
        f" where attrelid = c.oid)"
        f" from pg_class c where relnamespace = 'public'::regnamespace and relkind in ({kinds})",
    )


async def test_tables(db: asyncpg.Connection) -> None:
    assert await relations(db, "'r', 'p', 'v', 'm', 'f'", "r") == TABLES


async def test_sequences(db: asyncpg.Connection) -> None:
    assert await relations(db, "'S'", "s") == SEQUENCES


async def test_functions(db: asyncpg.Connection) -> None:
    found = await rights(
        db,
        "select p.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))"
        " from pg_proc p where pronamespace = 'public'::regnamespace",
    )
    assert found == FUNCTIONS


async def test_rows_and_names(db: asyncpg.Connection) -> None:
    """Row level security is on everywhere, users read their own rows alone, and no function trusts a search path."""
    tables = "from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
    assert await db.fetch(f"select relname {tables} and not relrowsecurity") == []
    policies = await db.fetch("select distinct cmd, roles::text, qual from pg_policies where schemaname = 'public'")
    own = "((( SELECT auth.uid() AS uid))::text = user_id)"
    assert [tuple(policy) for policy in policies] == [("SELECT", "{authenticated}", own)]
    functions = "from pg_proc where pronamespace = 'public'::regnamespace"
    trusting = f"select proname {functions} and not coalesce(proconfig @> array['search_path=\"\"'], false)"
    assert await db.fetch(trusting) == []
