-- What a worker needs after an outage: of the cache, what was written lately, in case it has forgotten what it was told
-- (one that was restored from an old dump); of this database, a way to save a profile late.
--
-- Applying this file again changes nothing.

create index if not exists companion_outbox_written on public.companion_outbox (written_at desc);

-- Every kind of data of every user that was written within so many seconds, the newest first, told or not.
create or replace function public.companion_written(p_within double precision, p_limit integer)
returns table (user_id text, what text, version bigint)
language sql stable set search_path = ''
as $$
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.written_at >= now() - p_within * interval '1 second'
  order by o.written_at desc
  limit greatest(p_limit, 0)
$$;

-- A row says when it was last changed, unless whoever changes it says otherwise.
create or replace function public.companion_touch() returns trigger
language plpgsql set search_path = ''
as $$
begin
  if new.updated_at is not distinct from old.updated_at then
    new.updated_at := now();
  end if;
  return new;
end
$$;

-- Saves a profile that was written at p_at, unless a newer one is there that is none of p_instead_of. Whether it did.
create or replace function public.companion_replace_profile(
  p_user_id text, p_text text, p_at timestamptz, p_instead_of text[]
)
returns boolean
language sql set search_path = ''
as $$
  with saved as (
    insert into public.companion_profiles as p (user_id, text, updated_at) values (p_user_id, p_text, p_at)
    on conflict (user_id) do update set text = excluded.text, updated_at = greatest(p.updated_at, p_at)
    where p.updated_at <= p_at or p.text = any (p_instead_of)
    returning 1
  )
  select exists (select from saved)
$$;

revoke all on function
  public.companion_written(double precision, integer),
  public.companion_replace_profile(text, text, timestamptz, text[])
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_written(double precision, integer),
  public.companion_replace_profile(text, text, timestamptz, text[])
to service_role;
