-- Everything that is kept of a person can be read, and erased. What stays of an erased one is a tombstone: a keyed hash
-- of the user id, with the number of the erasure. A write that began before the erasure is refused by it.
--
-- Applying this file again changes nothing.

-- Tables ---------------------------------------------------------------------------------------------------------

-- number counts the erasures of all persons, in the order in which they were committed. user_id is there until the
-- caches know; at is only for that. request names the request, so that one that is repeated deletes nothing new.
create table if not exists public.companion_erasures (
  person text primary key,
  number bigint not null,
  request text not null,
  user_id text,
  at timestamptz not null default now()
);
-- Of an id whose rows were moved to another one: that one, where late writes belong, and the number of its last erasure.
alter table public.companion_erasures add column if not exists moved_to text;
alter table public.companion_erasures add column if not exists erased bigint not null default 0;
create unique index if not exists companion_erasures_by_number on public.companion_erasures (number);
create index if not exists companion_erasures_pending on public.companion_erasures (at) where user_id is not null;

-- The key of the hashes: one row. Only the functions below read it.
create table if not exists public.companion_erasure_key (
  single boolean primary key default true check (single),
  key text not null default gen_random_uuid()::text || gen_random_uuid()::text
);
insert into public.companion_erasure_key default values on conflict do nothing;

-- The tombstone --------------------------------------------------------------------------------------------------

create or replace function public.companion_person(p_user_id text) returns text
language sql stable security definer set search_path = ''
as $$
  select encode(sha256(convert_to(
    k.key || encode(sha256(convert_to(k.key || p_user_id, 'utf8')), 'hex'), 'utf8'
  )), 'hex')
  from public.companion_erasure_key k
$$;

-- Whether a person was erased after the erasure of this number.
create or replace function public.companion_is_erased(p_user_id text, p_since bigint) returns boolean
language sql stable security definer set search_path = ''
as $$
  select exists (
    select from public.companion_erasures e
    where e.number > p_since and e.person = public.companion_person(p_user_id)
  )
$$;

-- Drops a write of the companion if the person was erased after the conversation had begun. How many erasures that knew
-- of is in a header; a worker of an earlier version names none, and its write has no effect, or is refused if the person
-- was moved (then it waits in the spool for a later worker, who knows where it belongs); a later one gets status 410.
-- Other programs, and people, write now.
--
-- The lock is shared by the writes of a user and exclusive for the erasure: a write is before it or after it.
create or replace function public.companion_refuse_erased() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  headers json := nullif(current_setting('request.headers', true), '')::json;
  known text := headers ->> 'x-companion-since';
begin
  if headers ->> 'x-companion' is null then
    return new;
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended(new.user_id, 13));
  if not public.companion_is_erased(new.user_id, coalesce(known::bigint, 0)) then
    return new;
  end if;
  if known is not null then
    raise exception 'erased' using errcode = 'PT410';
  end if;
  if exists (
    select from public.companion_erasures e
    where e.person = public.companion_person(new.user_id) and e.moved_to is not null
  ) then
    raise exception 'moved' using errcode = 'PT409';
  end if;
  return null;
end
$$;

-- Before companion_memories_once, which adds a version for the user. Without PostgREST there is no header.
do $$
declare
  kind text;
begin
  foreach kind in array array['profiles', 'turns', 'memories', 'summaries', 'states'] loop
    execute format(
      'create or replace trigger companion_%1$s_guarded before insert or update on public.companion_%1$s for each row'
      ' when (nullif(current_setting(''request.headers'', true), '''') is not null)'
      ' execute function public.companion_refuse_erased()', kind
    );
  end loop;
end
$$;

-- Functions ------------------------------------------------------------------------------------------------------

-- Erases a person; the number of the erasure. Of one who was moved, what is kept under the new id goes too. Runs as its
-- owner: no role may delete counters by hand.
create or replace function public.companion_erase(p_user_id text, p_request text default gen_random_uuid()::text)
returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
  hash text := public.companion_person(p_user_id);
  mine bigint;
  there text;
begin
  -- In the order of the other functions, which avoids deadlocks: a write of a profile locks its row, then the user, then
  -- the version at which all writers of a user queue up; a change by hand locks rows, then the version.
  perform from public.companion_profiles p where p.user_id = p_user_id for update;
  perform pg_advisory_xact_lock(hashtextextended(p_user_id, 13));
  select e.number into mine from public.companion_erasures e where e.person = hash and e.request = p_request;
  if found then
    return mine;
  end if;
  select e.moved_to into there from public.companion_erasures e where e.person = hash;
  if there <> p_user_id then
    perform public.companion_erase(there, p_request || ' ' || hash);
  end if;
  perform from public.companion_turns t where t.user_id = p_user_id for update;
  perform from public.companion_memories m where m.user_id = p_user_id for update;
  perform from public.companion_summaries s where s.user_id = p_user_id for update;
  perform from public.companion_states s where s.user_id = p_user_id for update;
  -- Rows that were inserted by hand are committed from here on, and seen below.
  insert into public.companion_versions as v (user_id, version) values (p_user_id, 1)
  on conflict (user_id) do update set version = v.version + 1;
  delete from public.companion_profiles d where d.user_id = p_user_id;
  delete from public.companion_turns d where d.user_id = p_user_id;
  delete from public.companion_memories d where d.user_id = p_user_id;
  delete from public.companion_summaries d where d.user_id = p_user_id;
  delete from public.companion_states d where d.user_id = p_user_id;
  -- After them, what their triggers have written.
  delete from public.companion_profile_versions d where d.user_id = p_user_id;
  delete from public.companion_removed_memories d where d.user_id = p_user_id;
  delete from public.companion_forgotten d where d.user_id = p_user_id;
  delete from public.companion_outbox d where d.user_id = p_user_id;
  delete from public.companion_changes d where d.user_id = p_user_id;
  delete from public.companion_versions d where d.user_id = p_user_id;
  -- One erasure after the other, until they are committed: who reads a number has read all lower ones.
  lock table public.companion_erasures in share row exclusive mode;
  -- What waits under earlier ids is erased too.
  update public.companion_erasures e set moved_to = null where e.moved_to = p_user_id;
  insert into public.companion_erasures as e (person, number, request, user_id)
  select hash, coalesce(max(o.number), 0) + 1, p_request, p_user_id from public.companion_erasures o
  on conflict (person) do update set
    number = excluded.number, request = excluded.request, user_id = excluded.user_id, at = now(), moved_to = null
  returning e.number into mine;
  return mine;
end
$$;

-- The number of the latest erasure of any person; with p_within, none that is older in seconds. 0: there is none.
create or replace function public.companion_latest_erasure(p_within double precision default null) returns bigint
language sql stable security definer set search_path = ''
as $$
  select coalesce(max(e.number), 0) from public.companion_erasures e
  where p_within is null or e.at >= now() - p_within * interval '1 second'
$$;

-- The erasures that the caches may not know of. Of one that is older than p_within seconds no cache holds anything.
create or replace function public.companion_pending_erasures(p_within double precision)
returns table (user_id text, number bigint)
language plpgsql security definer set search_path = ''
as $$
begin
  update public.companion_erasures e set user_id = null
  where e.user_id is not null and e.at < now() - p_within * interval '1 second';
  return query select e.user_id, e.number from public.companion_erasures e where e.user_id is not null;
end
$$;

-- The caches hold nothing of this person any more. Whether that was not known.
create or replace function public.companion_erasure_delivered(p_user_id text, p_number bigint) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
  update public.companion_erasures e set user_id = null where e.user_id = p_user_id and e.number = p_number;
  return found;
end
$$;

-- All that is kept of a person, in one snapshot.
create or replace function public.companion_export(p_user_id text) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object(
    'profile', (select p.text from public.companion_profiles p where p.user_id = p_user_id),
    'versions', (
      select coalesce(jsonb_agg(
        jsonb_build_object('version', v.version, 'text', v.text, 'at', v.at, 'author', v.author) order by v.version desc
      ), '[]'::jsonb)
      from public.companion_profile_versions v where v.user_id = p_user_id
    ),
    'turns', (
      select coalesce(jsonb_agg(
        jsonb_build_object(
          'id', t.id, 'conversation_id', t.conversation_id, 'role', t.role, 'text', t.text, 'at', t.at
        ) order by t.at, t.seq
      ), '[]'::jsonb)
      from public.companion_turns t where t.user_id = p_user_id
    ),
    'memories', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', m.id, 'text', m.text, 'at', m.at) order by m.at, m.seq
      ), '[]'::jsonb)
      from public.companion_memories m where m.user_id = p_user_id
    ),
    'summaries', (
      select coalesce(jsonb_agg(
        jsonb_build_object('conversation_id', s.conversation_id, 'text', s.text, 'at', s.at) order by s.at
      ), '[]'::jsonb)
      from public.companion_summaries s where s.user_id = p_user_id
    ),
    'state', (select s.state from public.companion_states s where s.user_id = p_user_id)
  )
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_erasures, public.companion_erasure_key
from public, anon, authenticated, service_role;
alter table public.companion_erasures enable row level security;
alter table public.companion_erasure_key enable row level security;

revoke all on function
  public.companion_person(text), public.companion_is_erased(text, bigint), public.companion_refuse_erased(),
  public.companion_erase(text, text), public.companion_latest_erasure(double precision),
  public.companion_pending_erasures(double precision), public.companion_erasure_delivered(text, bigint),
  public.companion_export(text)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_is_erased(text, bigint), public.companion_erase(text, text),
  public.companion_latest_erasure(double precision), public.companion_pending_erasures(double precision),
  public.companion_erasure_delivered(text, bigint), public.companion_export(text)
to service_role;
