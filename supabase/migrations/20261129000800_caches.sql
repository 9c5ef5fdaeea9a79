-- Lists that arrive whole, and the cache whose workers acknowledge.
--
-- PostgREST cuts a list that a table or a function returns (at 1,000 rows by default) and does not say so. A function
-- that returns one JSON document is not cut: these stand beside the functions that they call, which workers of the
-- version before still call themselves. Applying this file again changes nothing.

-- Lists ----------------------------------------------------------------------------------------------------------

create or replace function public.companion_written_json(p_within double precision, p_limit integer) returns jsonb
language sql stable set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(w) - 'place' order by w.place), '[]'::jsonb)
  from public.companion_outbox_recent(p_within, p_limit) with ordinality as w (user_id, what, version, place)
$$;

create or replace function public.companion_pending_json(p_limit integer, p_older_than double precision) returns jsonb
language sql set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(w) - 'place' order by w.place), '[]'::jsonb)
  from public.companion_outbox_pending(p_limit, p_older_than) with ordinality as w (user_id, what, version, place)
$$;

create or replace function public.companion_pending_erasures_json(p_within double precision) returns jsonb
language sql set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(e) order by e.number), '[]'::jsonb)
  from public.companion_pending_erasures(p_within) e
$$;

create or replace function public.companion_last_turns_json(p_user_id text, p_turns integer) returns jsonb
language sql stable set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(t) - 'place' order by t.place), '[]'::jsonb)
  from public.companion_last_turns(p_user_id, p_turns)
    with ordinality as t (id, conversation_id, role, text, at, place)
$$;

create or replace function public.companion_search_json(p_user_id text, p_query text, p_limit integer) returns jsonb
language sql stable set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(m) - 'place' order by m.place), '[]'::jsonb)
  from public.companion_search(p_user_id, p_query, p_limit) with ordinality as m (id, text, at, place)
$$;

-- What a user asked to forget.
create or replace function public.companion_forgotten_json(p_user_id text) returns jsonb
language sql stable set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object('key', f.key, 'words', f.words, 'number', f.number) order by f.key), '[]'::jsonb)
  from public.companion_forgotten f where f.user_id = p_user_id
$$;

-- A user's profile versions, the newest first.
create or replace function public.companion_profile_versions_json(p_user_id text, p_limit integer) returns jsonb
language sql stable set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(v) order by v.version desc), '[]'::jsonb)
  from (
    select p.version, p.text, p.at, p.author from public.companion_profile_versions p
    where p.user_id = p_user_id order by p.version desc limit greatest(p_limit, 0)
  ) v
$$;

-- The registered cache -------------------------------------------------------------------------------------------

-- The cache that this database's workers share, by the id that they keep in it: one row, or none before the first
-- worker. What is delivered to another cache (a laptop's, a new one) is not acknowledged.
create table if not exists public.companion_caches (
  only_one boolean primary key default true check (only_one),
  id text not null,
  used_at timestamptz not null default now()
);

-- Whether p_cache is the registered cache. The first one becomes it; with p_take_over also one that comes after it has
-- not been used for 26 hours, longer than any cached value lives: then it holds nothing that could be stale.
create or replace function public.companion_register_cache(p_cache text, p_take_over boolean) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
  -- Nearly always: it is registered, and its use was noted in the last minute.
  if exists (
    select from public.companion_caches c
    where c.id = p_cache and c.used_at between now() - interval '1 minute' and now()
  ) then
    return true;
  end if;
  insert into public.companion_caches as c (id) values (p_cache)
  on conflict (only_one) do update set id = excluded.id, used_at = now()
  where c.id = excluded.id or (p_take_over and c.used_at < now() - interval '26 hours');
  return found;
end
$$;

-- As companion_settle, for the workers of one cache; 0 if it is not the registered one.
create or replace function public.companion_settle_in(p_owed jsonb, p_cache text) returns integer
language sql security definer set search_path = '' set lock_timeout = '500ms'
as $$
  select case when public.companion_register_cache(p_cache, false) then public.companion_settle(p_owed) else 0 end
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_caches from public, anon, authenticated, service_role;
-- An operator may look, and may make room for another cache at once.
grant select, delete on table public.companion_caches to service_role;
alter table public.companion_caches enable row level security;

revoke all on function
  public.companion_written_json(double precision, integer),
  public.companion_pending_json(integer, double precision),
  public.companion_pending_erasures_json(double precision),
  public.companion_last_turns_json(text, integer), public.companion_search_json(text, text, integer),
  public.companion_profile_versions_json(text, integer), public.companion_forgotten_json(text),
  public.companion_register_cache(text, boolean), public.companion_settle_in(jsonb, text)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_last_turns_json(text, integer), public.companion_search_json(text, text, integer),
  public.companion_profile_versions_json(text, integer)
to authenticated, service_role;
grant execute on function
  public.companion_written_json(double precision, integer),
  public.companion_pending_json(integer, double precision),
  public.companion_pending_erasures_json(double precision), public.companion_forgotten_json(text),
  public.companion_register_cache(text, boolean), public.companion_settle_in(jsonb, text)
to service_role;
