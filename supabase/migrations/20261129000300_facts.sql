-- Facts: each is kept once, they can be counted, and one can be removed. A removed one stays so: a write of it that is
-- retried, or replayed from a spool, changes nothing.
--
-- Applying this file again changes nothing.

-- What facts that are the same have in common: the text without case, width, extra spaces and final punctuation.
-- Letters whose lower case hangs on the letters around them, or on the database's locale, are made alike before.
create or replace function public.companion_fact_key(p_text text) returns text
language sql immutable parallel safe set search_path = ''
as $$
  select coalesce(
    nullif(rtrim(btrim(regexp_replace(
      lower(translate(normalize(p_text, nfkc), 'İΣς', 'iσσ')), '\s+', ' ', 'g'
    )), '.!?;:, '), ''),
    p_text
  )
$$;

-- By its hash, because an index entry has a largest size.
create index if not exists companion_memories_by_fact
on public.companion_memories (user_id, md5(public.companion_fact_key(text)));

-- The id of a fact is random, and says nothing of the fact or of the person.
create table if not exists public.companion_removed_memories (
  user_id text not null,
  id text not null,
  removed_at timestamptz not null default now(),
  primary key (user_id, id)
);

-- Runs as its owner, so that a removal by any role is recorded.
create or replace function public.companion_record_removed_facts() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.companion_removed_memories (user_id, id)
  select r.user_id, r.id from removed r on conflict do nothing;
  return null;
end
$$;

create or replace trigger companion_memories_removed after delete on public.companion_memories
referencing old table as removed for each statement execute function public.companion_record_removed_facts();

-- Skips a fact that was removed, and one that the user has. Two clients that insert the same one wait for each other at
-- the user's version, where all writers of a user queue up, so that this adds no deadlock; a removal ends there too.
-- Runs as its owner, who may lock it.
create or replace function public.companion_keep_once() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.companion_versions (user_id, version) values (new.user_id, 0) on conflict (user_id) do nothing;
  perform from public.companion_versions v where v.user_id = new.user_id for update;
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

create or replace trigger companion_memories_once before insert on public.companion_memories
for each row execute function public.companion_keep_once();

-- How many facts companion_search finds without a limit.
create or replace function public.companion_count(p_user_id text, p_query text default '') returns bigint
language sql stable set search_path = ''
as $$
  with query as (
    select coalesce(string_agg('''' || lexeme || '''', ' | '), '')::tsquery as words
    from unnest(tsvector_to_array(public.companion_words(p_query))) as lexeme
  )
  select count(*)
  from public.companion_memories m, query
  where m.user_id = p_user_id and (numnode(query.words) = 0 or m.words @@ query.words)
$$;

-- Removes a fact. How many rows held it.
create or replace function public.companion_forget(p_user_id text, p_text text) returns bigint
language sql set search_path = ''
as $$
  with removed as (
    delete from public.companion_memories m
    where m.user_id = p_user_id
      and md5(public.companion_fact_key(m.text)) = md5(public.companion_fact_key(p_text))
    returning 1
  )
  select count(*) from removed
$$;

revoke all on table public.companion_removed_memories from public, anon, authenticated, service_role;
-- What is kept of a person can be deleted.
grant select, delete on table public.companion_removed_memories to service_role;
alter table public.companion_removed_memories enable row level security;

revoke all on function
  public.companion_fact_key(text), public.companion_keep_once(), public.companion_record_removed_facts(),
  public.companion_count(text, text), public.companion_forget(text, text)
from public, anon, authenticated, service_role;
grant execute on function public.companion_fact_key(text), public.companion_count(text, text)
to authenticated, service_role;
grant execute on function public.companion_forget(text, text) to service_role;
