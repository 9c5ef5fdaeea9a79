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

-- Replaces a user's profile if it is still the one that is named. Whether it did.
create or replace function public.companion_swap_profile(p_user_id text, p_text text, p_instead_of text)
returns boolean
language sql set search_path = ''
as $$
  with swapped as (
    update public.companion_profiles p set text = p_text
    where p.user_id = p_user_id and p.text = p_instead_of
    returning 1
  )
  select exists (select from swapped)
$$;

revoke all on function
  public.companion_written(double precision, integer),
  public.companion_swap_profile(text, text, text)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_written(double precision, integer),
  public.companion_swap_profile(text, text, text)
to service_role;
