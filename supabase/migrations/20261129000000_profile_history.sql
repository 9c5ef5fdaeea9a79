-- Every version of a profile, kept for 30 days after a later one has replaced it: what it said, by whom it was written,
-- and which write it came from. So an earlier one can be restored, and a write that is retried is recognised.
--
-- Applying this file again changes nothing.

-- Table ----------------------------------------------------------------------------------------------------------

-- text is empty for a profile that was deleted. at is when it was written, recorded_at when it was stored, replaced_at
-- when a later one was; a deletion counts as replaced at once.
create table if not exists public.companion_profile_versions (
  user_id text not null,
  version bigint generated always as identity,
  text text not null,
  at timestamptz not null,
  author text not null check (author in ('tool', 'code', 'dashboard', 'merge', 'restore')),
  write_id text,
  recorded_at timestamptz not null default now(),
  primary key (user_id, version)
);
create unique index if not exists companion_profile_versions_by_write
on public.companion_profile_versions (user_id, write_id) where write_id is not null;
alter table public.companion_profile_versions add column if not exists replaced_at timestamptz;
drop index if exists public.companion_profile_versions_by_age;
create index if not exists companion_profile_versions_by_end
on public.companion_profile_versions (replaced_at) where replaced_at is not null;

insert into public.companion_profile_versions (user_id, text, at, author)
select p.user_id, p.text, p.updated_at, 'code' from public.companion_profiles p
where not exists (select from public.companion_profile_versions v where v.user_id = p.user_id);

-- Trigger --------------------------------------------------------------------------------------------------------

-- Runs as its owner, so that a change made by any role is recorded. The companion's functions name the author; a worker
-- of an earlier version is known by its header, and the rest are other programs, or people.
create or replace function public.companion_record_profile() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  named text := coalesce(
    nullif(current_setting('companion.author', true), ''),
    case when nullif(current_setting('request.headers', true), '')::json ->> 'x-companion' is null
      then 'dashboard' else 'code' end
  );
  write text := nullif(current_setting('companion.write_id', true), '');
begin
  if tg_op = 'TRUNCATE' then  -- what "delete all rows" in the dashboard does
    update public.companion_profile_versions v set replaced_at = now() where v.replaced_at is null;
    insert into public.companion_profile_versions (user_id, text, at, author, replaced_at)
    select distinct v.user_id, '', now(), named, now() from public.companion_profile_versions v;
    return null;
  end if;
  if tg_op = 'DELETE' or (tg_op = 'UPDATE' and new.user_id is distinct from old.user_id) then
    update public.companion_profile_versions v set replaced_at = now()
    where v.user_id = old.user_id and v.replaced_at is null;
    insert into public.companion_profile_versions (user_id, text, at, author, replaced_at)
    values (old.user_id, '', now(), named, now());
  end if;
  if tg_op = 'INSERT' or (
    tg_op = 'UPDATE' and (write is not null or (new.user_id, new.text) is distinct from (old.user_id, old.text))
  ) then
    update public.companion_profile_versions v set replaced_at = now()
    where v.user_id = new.user_id and v.replaced_at is null;
    insert into public.companion_profile_versions (user_id, text, at, author, write_id)
    values (new.user_id, new.text, new.updated_at, named, write)
    on conflict (user_id, write_id) where write_id is not null do nothing;
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

create or replace trigger companion_profiles_recorded after insert or update or delete on public.companion_profiles
for each row execute function public.companion_record_profile();
create or replace trigger companion_profiles_recorded_emptied after truncate on public.companion_profiles
for each statement execute function public.companion_record_profile();

-- Functions ------------------------------------------------------------------------------------------------------

-- Replaces a user's profile: any, if p_any says so; else the one that is named (null: if there is none). Whether it
-- did; a write that was stored before changes nothing.
create or replace function public.companion_write_profile(
  p_user_id text, p_text text, p_at timestamptz, p_author text, p_write_id text, p_instead_of text, p_any boolean
)
returns boolean
language plpgsql set search_path = ''
as $$
declare
  written boolean;
begin
  -- Its row is locked first, so that the versions of a write that is committed meanwhile are seen below.
  perform from public.companion_profiles p where p.user_id = p_user_id for update;
  if exists (
    select from public.companion_profile_versions v where v.user_id = p_user_id and v.write_id = p_write_id
  ) then
    return false;
  end if;
  perform set_config('companion.written_at', p_at::text, true);
  perform set_config('companion.author', p_author, true);
  perform set_config('companion.write_id', coalesce(p_write_id, ''), true);
  if p_any then
    insert into public.companion_profiles (user_id, text, updated_at) values (p_user_id, p_text, p_at)
    on conflict (user_id) do update set text = excluded.text;
  elsif p_instead_of is null then
    insert into public.companion_profiles (user_id, text, updated_at) values (p_user_id, p_text, p_at)
    on conflict (user_id) do nothing;
  else
    update public.companion_profiles p set text = p_text where p.user_id = p_user_id and p.text = p_instead_of;
  end if;
  written := found;
  -- For whatever else this transaction writes.
  perform set_config('companion.written_at', '', true);
  perform set_config('companion.author', '', true);
  perform set_config('companion.write_id', '', true);
  return written;
end
$$;

-- A user's profile (null when there is none), and whether a write was stored already; in one snapshot.
create or replace function public.companion_profile_for_write(p_user_id text, p_write_id text) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object(
    'text', (select p.text from public.companion_profiles p where p.user_id = p_user_id),
    'has_write', exists (
      select from public.companion_profile_versions v where v.user_id = p_user_id and v.write_id = p_write_id
    )
  )
$$;

-- Makes an earlier version the user's profile again. Whether there is such a version.
create or replace function public.companion_restore_profile(p_user_id text, p_version bigint) returns boolean
language plpgsql set search_path = ''
as $$
declare
  earlier text;
begin
  select v.text into earlier from public.companion_profile_versions v
  where v.user_id = p_user_id and v.version = p_version;
  return found and public.companion_write_profile(p_user_id, earlier, now(), 'restore', null, null, true);
end
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_profile_versions from public, anon, authenticated, service_role;
grant select on table public.companion_profile_versions to authenticated;
-- Only the triggers write here. What is kept of a person can be deleted.
grant select, delete on table public.companion_profile_versions to service_role;

revoke all on function
  public.companion_record_profile(),
  public.companion_write_profile(text, text, timestamptz, text, text, text, boolean),
  public.companion_profile_for_write(text, text), public.companion_restore_profile(text, bigint)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_write_profile(text, text, timestamptz, text, text, text, boolean),
  public.companion_profile_for_write(text, text), public.companion_restore_profile(text, bigint)
to service_role;

alter table public.companion_profile_versions enable row level security;

drop policy if exists "Users read their own profile versions" on public.companion_profile_versions;
create policy "Users read their own profile versions" on public.companion_profile_versions
for select to authenticated using ((select auth.uid())::text = user_id);
