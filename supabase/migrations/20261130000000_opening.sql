-- How the next conversation with a person opens: what was decided, and the words for it, prepared when the last one
-- ended. A row holds for one version of what is kept of its user (companion_versions); any change makes it outdated.
--
-- It follows from the other tables, so no trigger counts its writes. Applying this file again changes nothing.

-- plan is empty while it is still to be made; texts, by the kind of opening, are null while they are still to be
-- written, by a worker with this prompt (a hash).
create table if not exists public.companion_openings (
  user_id text primary key,
  version bigint not null,
  plan jsonb not null check (jsonb_typeof(plan) = 'object'),
  texts jsonb check (jsonb_typeof(texts) = 'object'),
  prompt text not null,
  at timestamptz not null
);
create index if not exists companion_openings_to_write on public.companion_openings (prompt, at) where texts is null;
create index if not exists companion_openings_by_age on public.companion_openings (at);

-- Writes ---------------------------------------------------------------------------------------------------------

create or replace trigger companion_openings_guarded before insert or update on public.companion_openings for each row
when (nullif(current_setting('request.headers', true), '') is not null)
execute function public.companion_refuse_erased();

-- Replaces an opening; one with a plan only if it is of the current version. Whether it did. The lock is that of
-- companion_refuse_erased: what a forgetting deletes at this moment is not stored again after it.
create or replace function public.companion_save_opening(
  p_user_id text, p_version bigint, p_plan jsonb, p_texts jsonb, p_prompt text, p_at timestamptz
)
returns boolean
language plpgsql set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended(p_user_id, 13));
  if p_plan <> '{}' and p_version is distinct from coalesce(
    (select v.version from public.companion_versions v where v.user_id = p_user_id), 0
  ) then
    return false;
  end if;
  insert into public.companion_openings as o (user_id, version, plan, texts, prompt, at)
  values (p_user_id, p_version, p_plan, nullif(p_texts, 'null'), p_prompt, p_at)
  on conflict (user_id) do update set
    version = excluded.version, plan = excluded.plan, texts = excluded.texts, prompt = excluded.prompt, at = excluded.at;
  return true;
end
$$;

-- Takes over openings whose words a job that was killed has not written; the users, those of the latest first. From
-- then on they have none, so that no other worker takes them.
create or replace function public.companion_claim_openings(
  p_prompt text, p_older_than double precision, p_limit integer
)
returns jsonb
language sql set search_path = ''
as $$
  with claimed as (
    update public.companion_openings o set texts = '{}'
    from (
      select c.user_id from public.companion_openings c
      where c.prompt = p_prompt and c.texts is null and c.at < now() - p_older_than * interval '1 second'
        and not exists (  -- the conversation goes on, and prepares the next opening when it ends
          select from public.companion_turns t
          where t.user_id = c.user_id and t.at > now() - p_older_than * interval '1 second'
        )
      order by c.at desc limit greatest(p_limit, 0) for update skip locked
    ) left_over
    where o.user_id = left_over.user_id
    returning o.user_id, o.at
  )
  select coalesce(jsonb_agg(c.user_id order by c.at desc), '[]') from claimed c
$$;

-- Deletions ------------------------------------------------------------------------------------------------------

-- An opening may say what is forgotten, and is a part of what is erased. These run in the transactions of
-- companion_forget_things and companion_erase, which exclude other writes of the user.
create or replace function public.companion_drop_openings() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  delete from public.companion_openings o using gone g where o.user_id = g.user_id;
  return null;
end
$$;

create or replace trigger companion_forgotten_opening after insert on public.companion_forgotten
referencing new table as gone for each statement execute function public.companion_drop_openings();
create or replace trigger companion_erasures_opening after insert on public.companion_erasures
referencing new table as gone for each statement execute function public.companion_drop_openings();
create or replace trigger companion_erasures_opening_again after update on public.companion_erasures
referencing new table as gone for each statement execute function public.companion_drop_openings();

-- Reads ----------------------------------------------------------------------------------------------------------

create or replace function public.companion_opening(p_user_id text) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object('version', o.version, 'plan', o.plan, 'texts', o.texts, 'prompt', o.prompt, 'at', o.at)
  from public.companion_openings o where o.user_id = p_user_id
$$;

-- What a conversation starts from: as companion_begin, with the opening, and the version that it must be of to hold.
create or replace function public.companion_open(p_user_id text, p_turns integer, p_chars integer) returns jsonb
language sql stable set search_path = ''
as $$
  select public.companion_begin(p_user_id, p_turns, p_chars) || jsonb_build_object(
    'version', coalesce((select v.version from public.companion_versions v where v.user_id = p_user_id), 0),
    'opening', public.companion_opening(p_user_id)
  )
$$;

-- All that is kept of a person, in one snapshot: as companion_export, with the opening.
create or replace function public.companion_export_all(p_user_id text) returns jsonb
language sql stable set search_path = ''
as $$
  select public.companion_export(p_user_id) || jsonb_build_object('opening', public.companion_opening(p_user_id))
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_openings from public, anon, authenticated, service_role;
grant select on table public.companion_openings to authenticated;
grant select, insert, update, delete on table public.companion_openings to service_role;
alter table public.companion_openings enable row level security;

drop policy if exists "Users read their own opening" on public.companion_openings;
create policy "Users read their own opening" on public.companion_openings
for select to authenticated using ((select auth.uid())::text = user_id);

revoke all on function
  public.companion_save_opening(text, bigint, jsonb, jsonb, text, timestamptz),
  public.companion_claim_openings(text, double precision, integer), public.companion_drop_openings(),
  public.companion_opening(text), public.companion_open(text, integer, integer), public.companion_export_all(text)
from public, anon, authenticated, service_role;
grant execute on function public.companion_opening(text), public.companion_open(text, integer, integer)
to authenticated, service_role;
grant execute on function
  public.companion_save_opening(text, bigint, jsonb, jsonb, text, timestamptz),
  public.companion_claim_openings(text, double precision, integer), public.companion_export_all(text)
to service_role;
