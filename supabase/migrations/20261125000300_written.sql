-- What was written lately, for a cache that may have forgotten what it was told: one that was restored from an old dump.
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

revoke all on function public.companion_written(double precision, integer)
from public, anon, authenticated, service_role;
grant execute on function public.companion_written(double precision, integer) to service_role;
