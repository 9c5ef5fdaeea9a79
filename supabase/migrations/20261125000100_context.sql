-- What a conversation starts from besides profile and turns (a summary of each conversation, a state per user), and
-- the outbox: which invalidations the cache may not have heard of.
--
-- Applying this file again changes nothing.

-- Tables ---------------------------------------------------------------------------------------------------------

create table if not exists public.companion_summaries (
  user_id text not null,
  conversation_id text not null,
  text text not null,
  at timestamptz not null,
  primary key (user_id, conversation_id)
);
create index if not exists companion_summaries_by_time on public.companion_summaries (user_id, at desc);

create table if not exists public.companion_states (
  user_id text primary key,
  state jsonb not null check (jsonb_typeof(state) = 'object'),
  updated_at timestamptz not null default now()
);

-- version counts the writes to what is kept of a user; delivered is the version of which the cache has been told.
create table if not exists public.companion_outbox (
  user_id text not null,
  what text not null check (what in ('profile', 'turn', 'memory', 'summary', 'state')),
  version bigint not null,
  delivered bigint not null default 0,
  written_at timestamptz not null default now(),
  primary key (user_id, what)
);
-- Holds only what is owed, and so next to nothing.
create index if not exists companion_outbox_owed on public.companion_outbox (written_at) where version > delivered;

-- Triggers -------------------------------------------------------------------------------------------------------

create or replace trigger companion_states_touch before update on public.companion_states
for each row execute function public.companion_touch();

create or replace trigger companion_summaries_version after insert or update or delete on public.companion_summaries
for each row execute function public.companion_bump_version();
create or replace trigger companion_states_version after insert or update or delete on public.companion_states
for each row execute function public.companion_bump_version();

-- Counts a change in the transaction that makes it. Runs as its owner, so that a change made by any role counts.
create or replace function public.companion_owe() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op = 'TRUNCATE' then  -- what "delete all rows" in the dashboard does
    insert into public.companion_outbox as o (user_id, what, version)
    select v.user_id, tg_argv[0], 1 from public.companion_versions v order by 1
    on conflict (user_id, what) do update set version = o.version + 1, written_at = now();
  else
    -- An insert has no old row, a delete no new one; a row that changes hands has two users.
    insert into public.companion_outbox as o (user_id, what, version)
    select distinct u, tg_argv[0], 1 from unnest(array[old.user_id, new.user_id]) as u where u is not null order by u
    on conflict (user_id, what) do update set version = o.version + 1, written_at = now();
  end if;
  return null;
end
$$;

-- Triggers fire in the order of their names, these after those that count versions. So all writers of a user queue up
-- at that user's one version, and two that write a user's profile and a turn in opposite order do not deadlock here.
create or replace trigger companion_profiles_written after insert or update or delete on public.companion_profiles
for each row execute function public.companion_owe('profile');
create or replace trigger companion_turns_written after insert or update or delete on public.companion_turns
for each row execute function public.companion_owe('turn');
create or replace trigger companion_memories_written after insert or update or delete on public.companion_memories
for each row execute function public.companion_owe('memory');
create or replace trigger companion_summaries_written after insert or update or delete on public.companion_summaries
for each row execute function public.companion_owe('summary');
create or replace trigger companion_states_written after insert or update or delete on public.companion_states
for each row execute function public.companion_owe('state');

create or replace trigger companion_profiles_emptied after truncate on public.companion_profiles
for each statement execute function public.companion_owe('profile');
create or replace trigger companion_turns_emptied after truncate on public.companion_turns
for each statement execute function public.companion_owe('turn');
create or replace trigger companion_memories_emptied after truncate on public.companion_memories
for each statement execute function public.companion_owe('memory');
create or replace trigger companion_summaries_emptied after truncate on public.companion_summaries
for each statement execute function public.companion_owe('summary');
create or replace trigger companion_states_emptied after truncate on public.companion_states
for each statement execute function public.companion_owe('state');

-- Functions ------------------------------------------------------------------------------------------------------

-- A user's whole context in one request, read in one snapshot: the profile (null when there is none), the last
-- turns (oldest first), the latest summary and the state (null when there is none), and the version they belong to
-- (0 for a user nothing is known about).
create or replace function public.companion_context(p_user_id text, p_turns integer default 20) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object(
    'profile', (select p.text from public.companion_profiles p where p.user_id = p_user_id),
    'turns', (
      select coalesce(
        jsonb_agg(
          jsonb_build_object(
            'id', t.id, 'conversation_id', t.conversation_id, 'role', t.role, 'text', t.text, 'at', t.at
          ) order by t.at, t.seq
        ),
        '[]'::jsonb
      )
      from (
        select * from public.companion_turns where user_id = p_user_id
        order by at desc, seq desc limit greatest(p_turns, 0)
      ) t
    ),
    'summary', (
      select jsonb_build_object('conversation_id', s.conversation_id, 'text', s.text, 'at', s.at)
      from public.companion_summaries s where s.user_id = p_user_id order by s.at desc limit 1
    ),
    'state', (select s.state from public.companion_states s where s.user_id = p_user_id),
    'version', coalesce((select v.version from public.companion_versions v where v.user_id = p_user_id), 0)
  )
$$;

-- What is owed, the longest waiting first. Rows written in the last seconds are left to their writers, if so wished;
-- a clock that was set back hides nothing from those who ask for all.
create or replace function public.companion_owed(p_limit integer default 100, p_older_than double precision default 0)
returns table (user_id text, what text, version bigint)
language sql stable set search_path = ''
as $$
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.version > o.delivered and (p_older_than <= 0 or o.written_at <= now() - p_older_than * interval '1 second')
  order by o.written_at
  limit greatest(p_limit, 0)
$$;

-- What is owed for one user and these kinds of data.
create or replace function public.companion_owed_by(p_user_id text, p_whats text[])
returns table (user_id text, what text, version bigint)
language sql stable set search_path = ''
as $$
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.user_id = p_user_id and o.what = any (p_whats) and o.version > o.delivered
$$;

-- The cache has been told of these: [{"user_id", "what", "version"}, ...]. Returns how many were still owed.
-- A version the outbox does not have (it was read before a backup was restored) settles nothing.
--
-- Runs as its owner, because nobody sets a counter by hand. It gives up before PostgreSQL looks for deadlocks (after
-- a second): should it ever stand in a circle with somebody's long transaction, theirs goes on, and these stay owed.
create or replace function public.companion_settle(p_owed jsonb) returns integer
language plpgsql security definer set search_path = '' set lock_timeout = '500ms'
as $$
declare
  told record;
  touched integer;
  settled integer := 0;
begin
  -- In one order for all, so that two who settle do not block each other.
  for told in
    select g.* from jsonb_to_recordset(p_owed) as g (user_id text, what text, version bigint) order by 1, 2, 3
  loop
    update public.companion_outbox o set delivered = told.version
    where o.user_id = told.user_id and o.what = told.what
      and told.version > o.delivered and told.version <= o.version;
    get diagnostics touched = row_count;
    settled := settled + touched;
  end loop;
  return settled;
end
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_summaries, public.companion_states, public.companion_outbox
from public, anon, authenticated, service_role;
grant select on table public.companion_summaries, public.companion_states, public.companion_outbox to authenticated;
grant select, insert, update, delete on table public.companion_summaries, public.companion_states to service_role;
-- Nobody sets a counter by hand: the triggers and companion_settle do.
grant select on table public.companion_outbox to service_role;

revoke all on function
  public.companion_owe(), public.companion_context(text, integer),
  public.companion_owed(integer, double precision), public.companion_owed_by(text, text[]),
  public.companion_settle(jsonb)
from public, anon, authenticated, service_role;
grant execute on function public.companion_context(text, integer) to authenticated, service_role;
grant execute on function
  public.companion_owed(integer, double precision), public.companion_owed_by(text, text[]),
  public.companion_settle(jsonb)
to service_role;

alter table public.companion_summaries enable row level security;
alter table public.companion_states enable row level security;
alter table public.companion_outbox enable row level security;

drop policy if exists "Users read their own summaries" on public.companion_summaries;
create policy "Users read their own summaries" on public.companion_summaries
for select to authenticated using ((select auth.uid())::text = user_id);

drop policy if exists "Users read their own state" on public.companion_states;
create policy "Users read their own state" on public.companion_states
for select to authenticated using ((select auth.uid())::text = user_id);

drop policy if exists "Users read their own outbox" on public.companion_outbox;
create policy "Users read their own outbox" on public.companion_outbox
for select to authenticated using ((select auth.uid())::text = user_id);
