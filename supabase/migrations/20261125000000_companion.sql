-- What the companion remembers: one profile per user, every turn, the facts worth keeping, and a version per user.
--
-- Applying this file again changes nothing. Names carry a prefix, because many projects have a table called "profiles".
-- user_id is text: callers are not always users of Supabase Auth. Those who are may read what is kept about them;
-- nobody but the service role writes.

-- Tables ---------------------------------------------------------------------------------------------------------

-- What a text is searched by: its words in their stems, without accents. Punctuation inside a word ends it, so that
-- "rex@example.com" is found by "rex". Only the first 100,000 characters count: a tsvector has a largest size.
create or replace function public.companion_words(p_text text) returns tsvector
language sql immutable parallel safe set search_path = ''
as $$
  select to_tsvector(
    'pg_catalog.english',
    translate(
      regexp_replace(normalize(left(p_text, 100000), nfkd), '[\u0300-\u036f]', '', 'g'),
      '''’./@:-_+&?=#%~<>\', repeat(' ', 18)
    )
  )
$$;

create table if not exists public.companion_profiles (
  user_id text primary key,
  text text not null,
  updated_at timestamptz not null default now()
);

-- seq keeps the order in which turns of the same instant were written.
create table if not exists public.companion_turns (
  user_id text not null,
  id text not null,
  conversation_id text not null,
  role text not null check (role in ('user', 'assistant')),
  text text not null,
  at timestamptz not null,
  seq bigint generated always as identity,
  primary key (user_id, id)
);
create index if not exists companion_turns_by_time on public.companion_turns (user_id, at desc, seq desc);

create table if not exists public.companion_memories (
  user_id text not null,
  id text not null,
  text text not null,
  at timestamptz not null,
  seq bigint generated always as identity,
  words tsvector generated always as (public.companion_words(text)) stored,
  primary key (user_id, id)
);
create index if not exists companion_memories_by_time on public.companion_memories (user_id, at desc, seq desc);
create index if not exists companion_memories_by_words on public.companion_memories using gin (words);

-- Grows with every change to anything of a user's above, whoever makes it.
create table if not exists public.companion_versions (
  user_id text primary key,
  version bigint not null,
  updated_at timestamptz not null default now()
);

-- Triggers -------------------------------------------------------------------------------------------------------

-- Later files replace this function and companion_context. Applying this one again leaves theirs alone.
do $once$ begin
if to_regprocedure('public.companion_touch()') is null then execute $create$
create function public.companion_touch() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end
$$
$create$; end if;
end $once$;

create or replace trigger companion_profiles_touch before update on public.companion_profiles
for each row execute function public.companion_touch();

-- Runs as its owner, so that a change made by any role counts.
create or replace function public.companion_bump_version() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op <> 'INSERT' then
    insert into public.companion_versions as v (user_id, version) values (old.user_id, 1)
    on conflict (user_id) do update set version = v.version + 1, updated_at = now();
  end if;
  if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.user_id <> old.user_id) then
    insert into public.companion_versions as v (user_id, version) values (new.user_id, 1)
    on conflict (user_id) do update set version = v.version + 1, updated_at = now();
  end if;
  return null;
end
$$;

create or replace trigger companion_profiles_version after insert or update or delete on public.companion_profiles
for each row execute function public.companion_bump_version();
create or replace trigger companion_turns_version after insert or update or delete on public.companion_turns
for each row execute function public.companion_bump_version();
create or replace trigger companion_memories_version after insert or update or delete on public.companion_memories
for each row execute function public.companion_bump_version();

-- Functions ------------------------------------------------------------------------------------------------------

-- A user's whole context in one request, read in one snapshot: the profile (null when there is none), the last
-- turns (oldest first), and the version they belong to (0 for a user nothing is known about).
do $once$ begin
if to_regprocedure('public.companion_context(text, integer)') is null then execute $create$
create function public.companion_context(p_user_id text, p_turns integer default 20) returns jsonb
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
    'version', coalesce((select v.version from public.companion_versions v where v.user_id = p_user_id), 0)
  )
$$
$create$; end if;
end $once$;

-- The user's memories that share a word with the query, best first. A query without a telling word gives the newest.
create or replace function public.companion_search(p_user_id text, p_query text, p_limit integer default 5)
returns table (id text, text text, at timestamptz)
language sql stable set search_path = ''
as $$
  with query as (
    -- Any of the words will do. Lexemes hold no quotes or blanks here: companion_words has made words of them.
    select coalesce(string_agg('''' || lexeme || '''', ' | '), '')::tsquery as words
    from unnest(tsvector_to_array(public.companion_words(p_query))) as lexeme
  )
  select m.id, m.text, m.at
  from public.companion_memories m, query
  where m.user_id = p_user_id and (numnode(query.words) = 0 or m.words @@ query.words)
  order by ts_rank(m.words, query.words) desc, m.at desc, m.seq desc
  limit greatest(p_limit, 0)
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

-- Older projects grant every new table and function to everybody, newer ones to nobody: say it all, either way.
revoke all on table
  public.companion_profiles, public.companion_turns, public.companion_memories, public.companion_versions
from public, anon, authenticated, service_role;
grant select on table
  public.companion_profiles, public.companion_turns, public.companion_memories, public.companion_versions
to authenticated;
grant select, insert, update, delete on table
  public.companion_profiles, public.companion_turns, public.companion_memories
to service_role;
-- Nobody sets a version by hand: the triggers do.
grant select on table public.companion_versions to service_role;

revoke all on function
  public.companion_words(text), public.companion_touch(), public.companion_bump_version(),
  public.companion_context(text, integer), public.companion_search(text, text, integer)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_words(text), public.companion_context(text, integer), public.companion_search(text, text, integer)
to authenticated, service_role;

alter table public.companion_profiles enable row level security;
alter table public.companion_turns enable row level security;
alter table public.companion_memories enable row level security;
alter table public.companion_versions enable row level security;

-- "(select auth.uid())" is worked out once per statement; bare, once per row.
drop policy if exists "Users read their own profile" on public.companion_profiles;
create policy "Users read their own profile" on public.companion_profiles
for select to authenticated using ((select auth.uid())::text = user_id);

drop policy if exists "Users read their own turns" on public.companion_turns;
create policy "Users read their own turns" on public.companion_turns
for select to authenticated using ((select auth.uid())::text = user_id);

drop policy if exists "Users read their own memories" on public.companion_memories;
create policy "Users read their own memories" on public.companion_memories
for select to authenticated using ((select auth.uid())::text = user_id);

drop policy if exists "Users read their own version" on public.companion_versions;
create policy "Users read their own version" on public.companion_versions
for select to authenticated using ((select auth.uid())::text = user_id);
