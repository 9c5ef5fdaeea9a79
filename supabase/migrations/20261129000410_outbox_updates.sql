-- The outbox is updated twice for every write, and so are its indexes, unless the columns that they hold stay as they
-- are and the new row fits into the old one's page: then PostgreSQL reuses the space at once (a HOT update). It never
-- did: 200,000 turns of 2,000 rows took 14 MB. Here no index holds a column that every write changes, and none of
-- the table of changes either, which is updated for every write of another program.
--
-- companion_owed, companion_written and companion_changes_since, which workers of the version before still call, read the
-- whole table now.
-- Applying this file again changes nothing.

alter table public.companion_outbox set (fillfactor = 50);
alter table public.companion_versions set (fillfactor = 50);
alter table public.companion_changes set (fillfactor = 50);

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

-- The block of 16,384 transactions that a change was made in: the changes of a reader's latest ones are in one or two.
alter table public.companion_changes add column if not exists xact_block bigint not null
  generated always as (xact >> 14) stored;

drop index if exists public.companion_changes_by_xact;
create index if not exists companion_changes_by_block on public.companion_changes (xact_block);

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

-- As companion_changes_since, by the index of blocks.
create or replace function public.companion_changes_after(
  p_xact bigint, p_user_id text default '', p_what text default '', p_seconds integer default null,
  p_limit integer default 1000
) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object(
    'xact', pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    'changes', (
      select coalesce(
        jsonb_agg(
          jsonb_build_object('user_id', c.user_id, 'what', c.what, 'xact', c.xact) order by c.xact, c.user_id, c.what
        ),
        '[]'::jsonb
      )
      from (
        select * from public.companion_changes
        where xact_block >= p_xact >> 14 and (xact, user_id, what) > (p_xact, p_user_id, p_what)
          and (p_seconds is null or at > now() - make_interval(secs => p_seconds))
        order by xact_block, xact, user_id, what limit greatest(p_limit, 0)
      ) c
    )
  )
$$;

revoke all on function
  public.companion_activate(), public.companion_outbox_pending(integer, double precision),
  public.companion_outbox_recent(double precision, integer),
  public.companion_changes_after(bigint, text, text, integer, integer)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_outbox_pending(integer, double precision), public.companion_outbox_recent(double precision, integer),
  public.companion_changes_after(bigint, text, text, integer, integer)
to service_role;
