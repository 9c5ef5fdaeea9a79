-- What follows a write (the user's version, the outbox, the changes made elsewhere, the history of profiles) is done
-- once a statement, not once a row. Row by row, each of a user's rows updates the same counters again, and PostgreSQL
-- walks all the earlier updates of the transaction to find them: 20,000 turns of one user took 48 seconds.
--
-- Applying this file again changes nothing.

-- Counting -------------------------------------------------------------------------------------------------------

-- Counts a statement's writes in the transaction that makes them: for each user one more a row. Its argument is the
-- kind of data. Runs as its owner, so that a change made by any role counts.
--
-- No query here joins the rows of a statement with each other: its plan is made for the first statement of a session,
-- which usually has one row, and kept.
create or replace function public.companion_count_writes() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  writes text[];  -- the user of each row
  before text[];
begin
  if tg_op = 'INSERT' then
    writes := array(select n.user_id from new_rows n);
  elsif tg_op = 'DELETE' then
    writes := array(select o.user_id from old_rows o);
  elsif tg_op = 'UPDATE' then  -- a row that changes hands has two users
    before := array(select o.user_id from old_rows o);
    writes := array(select n.user_id from new_rows n);
    if before <> writes then
      writes := before || array(
        select r.after from unnest(before, writes) as r (before, after) where r.after <> r.before
      );
    end if;
  else  -- TRUNCATE, which "delete all rows" in the dashboard does: any user may have had one
    writes := array(select v.user_id from public.companion_versions v);
  end if;
  if writes = '{}' then  -- an upsert is an insert and an update, and one of them has no rows
    return null;
  end if;
  -- In the order of users, and each user's version first: all writers of a user queue up there. That makes deadlocks
  -- rare, not impossible, as 20261125000100_context.sql has it: a write that waits here holds the row it has written,
  -- and a transaction of several statements that holds the version may want that row. PostgreSQL then undoes one of the
  -- two; a worker whose write it is sends it again at once.
  if tg_op <> 'TRUNCATE' then
    insert into public.companion_versions as v (user_id, version)
    select w.user_id, count(*) from unnest(writes) as w (user_id) group by 1 order by 1
    on conflict (user_id) do update set version = v.version + excluded.version, updated_at = now();
  end if;
  insert into public.companion_outbox as o (user_id, what, version)
  select w.user_id, tg_argv[0], count(*) from unnest(writes) as w (user_id) group by 1 order by 1
  on conflict (user_id, what) do update set version = o.version + excluded.version, written_at = now();
  -- Whose write it is: the companion names itself in a header of its requests, and PostgREST puts those into
  -- request.headers. Without PostgREST there is no header.
  if nullif(current_setting('request.headers', true), '')::json ->> 'x-companion' is null then
    insert into public.companion_changes (user_id, what, xact, at)
    select w.user_id, tg_argv[0], pg_current_xact_id()::text::bigint, clock_timestamp()
    from unnest(writes) as w (user_id) group by 1 order by 1
    on conflict (user_id, what) do update set xact = excluded.xact, at = excluded.at;
  end if;
  return null;
end
$$;

-- The history of profiles ----------------------------------------------------------------------------------------

-- Makes a text a user's current version; null: the profile was deleted.
create or replace function public.companion_add_profile_version(
  p_user_id text, p_text text, p_at timestamptz, p_author text, p_write_id text
)
returns void
language plpgsql set search_path = '' set enable_seqscan = off  -- as companion_keep_fact_once
as $$
begin
  update public.companion_profile_versions v set replaced_at = now()
  where v.user_id = p_user_id and v.replaced_at is null;
  if p_text is null then
    insert into public.companion_profile_versions (user_id, text, at, author, replaced_at)
    values (p_user_id, '', now(), p_author, now());
  else
    insert into public.companion_profile_versions (user_id, text, at, author, write_id)
    values (p_user_id, p_text, p_at, p_author, p_write_id)
    on conflict (user_id, write_id) where write_id is not null do nothing;
  end if;
end
$$;

-- Runs as its owner, so that a change made by any role is recorded. The companion's functions name the author; a worker
-- of an earlier version is known by its header, and the rest are other programs, or people.
create or replace function public.companion_record_profiles() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  named text;
  write text;
begin
  if tg_op in ('INSERT', 'UPDATE') then
    if not exists (select from new_rows) then  -- an upsert is an insert and an update
      return null;
    end if;
  end if;
  named := coalesce(
    nullif(current_setting('companion.author', true), ''),
    case when nullif(current_setting('request.headers', true), '')::json ->> 'x-companion' is null
      then 'dashboard' else 'code' end
  );
  write := nullif(current_setting('companion.write_id', true), '');
  if tg_op = 'TRUNCATE' then  -- what "delete all rows" in the dashboard does
    update public.companion_profile_versions v set replaced_at = now() where v.replaced_at is null;
    insert into public.companion_profile_versions (user_id, text, at, author, replaced_at)
    select distinct v.user_id, '', now(), named, now() from public.companion_profile_versions v;
    return null;
  elsif tg_op = 'INSERT' then
    perform public.companion_add_profile_version(n.user_id, n.text, n.updated_at, named, write) from new_rows n;
  elsif tg_op = 'DELETE' then
    perform public.companion_add_profile_version(o.user_id, null, null, named, null) from old_rows o;
  else  -- a profile that changes hands is deleted for one user and new for another
    perform public.companion_add_profile_version(c.user_id, c.after, c.at, named, write)
    from (
      select
        b.user_id, max(b.text) filter (where not b.is_new) as before, max(b.text) filter (where b.is_new) as after,
        max(b.updated_at) filter (where b.is_new) as at
      from (
        select o.user_id, o.text, o.updated_at, false as is_new from old_rows o
        union all select n.user_id, n.text, n.updated_at, true from new_rows n
      ) b
      group by b.user_id
    ) c
    where c.after is distinct from c.before or write is not null;
  end if;
  -- Skips what another transaction deletes at this moment, and so waits for none.
  delete from public.companion_profile_versions d
  using (
    select v.user_id, v.version from public.companion_profile_versions v
    where v.replaced_at < now() - interval '30 days' limit 100 for update skip locked
  ) old_ones
  where d.user_id = old_ones.user_id and d.version = old_ones.version;
  return null;
end
$$;

-- Facts ----------------------------------------------------------------------------------------------------------

-- Skips a fact that was removed, and one that the user has. This is done row by row, because the rows of one statement
-- may be the same fact. Clients that insert at the same time wait for each other at the user's version, where all
-- writers of a user queue up; a removal ends there too. Runs as its owner, who may lock it.
--
-- By the indexes, however small the tables are: the plan is made for the first rows, and kept while the same statement
-- inserts thousands.
create or replace function public.companion_keep_fact_once() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
begin
  perform from public.companion_versions v where v.user_id = new.user_id for update;
  if not found then
    insert into public.companion_versions (user_id, version) values (new.user_id, 0) on conflict (user_id) do nothing;
    perform from public.companion_versions v where v.user_id = new.user_id for update;
  end if;
  if exists (
    select from public.companion_removed_memories r where r.user_id = new.user_id and r.id = new.id
  ) or exists (
    select from public.companion_memories m
    where m.user_id = new.user_id
      and md5(public.companion_fact_key(m.text)) = md5(public.companion_fact_key(new.text))
  ) then
    return null;
  end if;
  return new;
end
$$;

-- Triggers -------------------------------------------------------------------------------------------------------

-- One an event, because PostgreSQL names a statement's rows for one event alone.
do $$
declare
  kind record;
begin
  for kind in
    select * from (values
      ('companion_profiles', 'profile'), ('companion_turns', 'turn'), ('companion_memories', 'memory'),
      ('companion_summaries', 'summary'), ('companion_states', 'state')
    ) as kinds (name, what)
  loop
    execute format('drop trigger if exists %I on public.%I', kind.name || '_version', kind.name);
    execute format('drop trigger if exists %I on public.%I', kind.name || '_written', kind.name);
    execute format('drop trigger if exists %I on public.%I', kind.name || '_emptied', kind.name);
    execute format(
      'create or replace trigger %I after insert on public.%I referencing new table as new_rows'
      ' for each statement execute function public.companion_count_writes(%L)',
      kind.name || '_count_insert', kind.name, kind.what
    );
    execute format(
      'create or replace trigger %I after update on public.%I referencing old table as old_rows new table as new_rows'
      ' for each statement execute function public.companion_count_writes(%L)',
      kind.name || '_count_update', kind.name, kind.what
    );
    execute format(
      'create or replace trigger %I after delete on public.%I referencing old table as old_rows'
      ' for each statement execute function public.companion_count_writes(%L)',
      kind.name || '_count_delete', kind.name, kind.what
    );
    execute format(
      'create or replace trigger %I after truncate on public.%I'
      ' for each statement execute function public.companion_count_writes(%L)',
      kind.name || '_count_truncate', kind.name, kind.what
    );
  end loop;
end
$$;

drop trigger if exists companion_profiles_recorded on public.companion_profiles;
drop trigger if exists companion_profiles_recorded_emptied on public.companion_profiles;
create or replace trigger companion_profiles_record_insert after insert on public.companion_profiles
referencing new table as new_rows for each statement execute function public.companion_record_profiles();
create or replace trigger companion_profiles_record_update after update on public.companion_profiles
referencing old table as old_rows new table as new_rows
for each statement execute function public.companion_record_profiles();
create or replace trigger companion_profiles_record_delete after delete on public.companion_profiles
referencing old table as old_rows for each statement execute function public.companion_record_profiles();
create or replace trigger companion_profiles_record_truncate after truncate on public.companion_profiles
for each statement execute function public.companion_record_profiles();

create or replace trigger companion_memories_once before insert on public.companion_memories
for each row execute function public.companion_keep_fact_once();

drop trigger if exists companion_outbox_elsewhere on public.companion_outbox;

-- Not companion_bump_version: the second of the files could not be applied again without it.
drop function if exists public.companion_owe();
drop function if exists public.companion_note_change();
drop function if exists public.companion_record_profile();
drop function if exists public.companion_keep_once();

revoke all on function
  public.companion_count_writes(), public.companion_record_profiles(), public.companion_keep_fact_once(),
  public.companion_add_profile_version(text, text, timestamptz, text, text)
from public, anon, authenticated, service_role;
