-- Changes made elsewhere than in the companion (the dashboard, another service), so that its cache can forget what they
-- touched: a row per user and kind of data, and a function that tells a reader what it has not seen yet.
--
-- The companion's own writes are not here: it has told its cache already. Applying this file again changes nothing.

-- Table ----------------------------------------------------------------------------------------------------------

-- xact is the transaction of the last such change.
create table if not exists public.companion_changes (
  user_id text not null,
  what text not null,
  xact bigint not null,
  at timestamptz not null,
  primary key (user_id, what)
);
create index if not exists companion_changes_by_xact on public.companion_changes (xact, user_id, what);

-- Trigger --------------------------------------------------------------------------------------------------------

-- Runs as its owner, so that a change made by any role counts.
create or replace function public.companion_note_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.companion_changes (user_id, what, xact, at)
  values (new.user_id, new.what, pg_current_xact_id()::text::bigint, clock_timestamp())
  on conflict (user_id, what) do update set xact = excluded.xact, at = excluded.at;
  return null;
end
$$;

-- Every write to what is kept of a user counts in the outbox; this tells whose it was. The companion names itself in a
-- header of its requests, and PostgREST puts those into request.headers. Without PostgREST there is no header.
create or replace trigger companion_outbox_elsewhere after insert or update of version on public.companion_outbox
for each row when (nullif(current_setting('request.headers', true), '')::json ->> 'x-companion' is null)
execute function public.companion_note_change();

-- Function -------------------------------------------------------------------------------------------------------

-- What was changed elsewhere in the transactions from p_xact on, in pages of p_limit: p_user_id and p_what are the last
-- row of the page before. With p_seconds, only what is not older.
--
-- Transactions become visible in another order than they began in, so neither a time nor a sequence tells what a
-- reader has not seen. The snapshot does: every transaction below its xmin (the "xact" of the answer) is over, so its
-- rows were in an answer before or are in this one. Who asks from that number on the next time misses nothing, however
-- long a transaction was open; a row that is in two answers has the same xact in both.
create or replace function public.companion_changes_since(
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
        where (xact, user_id, what) > (p_xact, p_user_id, p_what)
          and (p_seconds is null or at > now() - make_interval(secs => p_seconds))
        order by xact, user_id, what limit greatest(p_limit, 0)
      ) c
    )
  )
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_changes from public, anon, authenticated, service_role;
-- Nobody writes here by hand: the triggers do.
grant select on table public.companion_changes to service_role;

revoke all on function
  public.companion_note_change(), public.companion_changes_since(bigint, text, text, integer, integer)
from public, anon, authenticated, service_role;
grant execute on function public.companion_changes_since(bigint, text, text, integer, integer) to service_role;

alter table public.companion_changes enable row level security;

-- Realtime -------------------------------------------------------------------------------------------------------

-- Where the project has Realtime, it rings when a row changes here. Without it the companion asks now and then.
do $$
begin
  if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
    and not exists (
      select from pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'companion_changes'
    )
  then
    alter publication supabase_realtime add table public.companion_changes;
  end if;
end
$$;
