-- The outbox is updated twice for every write, and so are its indexes, unless the columns that they hold stay as they
-- are and the new row fits into the old one's page: then PostgreSQL reuses the space at once (a HOT update). It never
-- did: 200,000 turns of 2,000 rows took 14 MB. Here no index holds a column that every write changes.
--
-- companion_owed and companion_written, which workers of the version before still call, read the whole table now.
-- Applying this file again changes nothing.

alter table public.companion_outbox set (fillfactor = 50);
alter table public.companion_versions set (fillfactor = 50);

-- written_in is the hour of written_at. active stays true for a while after the row was acknowledged, so that not every
-- acknowledgement changes it; a row that is not active is not pending.
alter table public.companion_outbox add column if not exists written_in timestamptz not null
  generated always as (date_bin('1 hour', written_at, timestamptz '2000-01-01 00:00:00+00')) stored;
do $$ begin
if not exists (
  select from pg_attribute
  where attrelid = 'public.companion_outbox'::regclass and attname = 'active' and not attisdropped
) then
  alter table public.companion_outbox add column active boolean not null default false;
  update public.companion_outbox set active = true where version > delivered;
  alter table public.companion_outbox alter column active set default true;
end if;
end $$;

drop index if exists public.companion_outbox_owed;
drop index if exists public.companion_outbox_written;
create index if not exists companion_outbox_active on public.companion_outbox (written_in) where active;
create index if not exists companion_outbox_by_hour on public.companion_outbox (written_in);

create or replace function public.companion_activate() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.active := true;
  return new;
end
$$;

create or replace trigger companion_outbox_activate before update on public.companion_outbox
for each row when (new.version > new.delivered and not new.active) execute function public.companion_activate();

-- Functions ------------------------------------------------------------------------------------------------------

-- The pending rows of the outbox, the longest pending first. Rows written in the last p_older_than seconds are left to
-- their writers. Ages are of this database's clock alone. One that was set back leaves rows that seem to be written in
-- the future: their age is unknown, and nothing is lost if they are delivered at once.
--
-- Runs as its owner, because it ends the activity of rows that have not been written for five minutes.
create or replace function public.companion_outbox_pending(p_limit integer, p_older_than double precision)
returns table (user_id text, what text, version bigint)
language plpgsql security definer set search_path = ''
as $$
begin
  update public.companion_outbox o set active = false
  from (
    select r.user_id, r.what from public.companion_outbox r
    where r.active and r.version <= r.delivered and r.written_at < now() - interval '5 minutes'
    limit 1000 for update skip locked
  ) idle
  where o.user_id = idle.user_id and o.what = idle.what;
  return query
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.active and o.version > o.delivered
    and (p_older_than <= 0 or o.written_at <= now() - p_older_than * interval '1 second' or o.written_at > now())
  order by o.written_in, o.written_at
  limit greatest(p_limit, 0);
end
$$;
drop function if exists public.companion_pending(integer, double precision);

-- Every row that was written within so many seconds, the newest first, pending or not.
create or replace function public.companion_outbox_recent(p_within double precision, p_limit integer)
returns table (user_id text, what text, version bigint)
language sql stable set search_path = ''
as $$
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.written_at >= now() - p_within * interval '1 second'
    and o.written_in > now() - p_within * interval '1 second' - interval '1 hour'
  order by o.written_in desc, o.written_at desc
  limit greatest(p_limit, 0)
$$;

revoke all on function
  public.companion_activate(), public.companion_outbox_pending(integer, double precision),
  public.companion_outbox_recent(double precision, integer)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_outbox_pending(integer, double precision), public.companion_outbox_recent(double precision, integer)
to service_role;
