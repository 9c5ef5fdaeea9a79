-- Turns that are old can be deleted: the companion does so once a day where COMPANION_RETENTION_DAYS is set, and any
-- job can with the function below. Profile, facts, summaries and state stay.
--
-- Applying this file again changes nothing.

create index if not exists companion_turns_by_age on public.companion_turns (at);

-- Deletes up to p_limit turns that are older than p_days days, the oldest first. How many; fewer than p_limit when none
-- is left, or when another call is deleting at this moment. A turn that is dated in the future, by a clock that was
-- wrong, counts from now on.
create or replace function public.companion_expire_turns(p_days integer, p_limit integer default 1000) returns integer
language plpgsql set search_path = ''
as $$
declare
  expired text[];  -- the user of each row
begin
  if p_days is null or p_days < 1 then
    raise exception 'turns are kept for at least one day' using errcode = '22023';
  end if;
  if not pg_try_advisory_xact_lock(hashtextextended('companion_expire_turns', 0)) then
    return 0;
  end if;
  update public.companion_turns t set at = now()
  from (
    select f.user_id, f.id from public.companion_turns f
    where f.at > now() + interval '1 day' order by f.at desc limit greatest(p_limit, 0) for update skip locked
  ) ahead
  where t.user_id = ahead.user_id and t.id = ahead.id;
  -- What was prepared from turns of then quotes them (20261130000000_opening.sql).
  delete from public.companion_openings o where o.at < now() - make_interval(days => p_days);
  with deleted as (
    delete from public.companion_turns t
    using (
      select o.user_id, o.id from public.companion_turns o
      where o.at < now() - make_interval(days => p_days)
      order by o.at limit greatest(p_limit, 0) for update skip locked
    ) old
    where t.user_id = old.user_id and t.id = old.id
    returning t.user_id
  )
  select coalesce(array_agg(d.user_id), '{}') into expired from deleted d;
  -- The deletion of old turns makes no opening outdated: it quotes none of them.
  update public.companion_openings o set version = o.version + d.number
  from (select e.user_id, count(*) as number from unnest(expired) as e (user_id) group by 1) d
  where o.user_id = d.user_id;
  return cardinality(expired);
end
$$;

revoke all on function public.companion_expire_turns(integer, integer)
from public, anon, authenticated, service_role;
grant execute on function public.companion_expire_turns(integer, integer) to service_role;
