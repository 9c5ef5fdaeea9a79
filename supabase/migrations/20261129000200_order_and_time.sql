-- The order of what was said is the order in which it was stored, not that of clocks; a time in the future is no time to
-- order by; and what a conversation starts from has a bounded size, however long a turn is.
--
-- These functions stand beside companion_context and companion_owed, which workers of the version before still call.
-- Applying this file again changes nothing.

create index if not exists companion_turns_by_seq on public.companion_turns (user_id, seq desc);

-- A user's last turns, oldest first. Conversations are in the order of their last stored turn. Within one, its own times
-- count, because one worker took them: turns that waited for the database are stored in another order than they were
-- said. Only the latest 200 turns are looked at. With p_chars, no text is longer.
create or replace function public.companion_last_turns(p_user_id text, p_turns integer, p_chars integer default null)
returns table (id text, conversation_id text, role text, text text, at timestamptz)
language sql stable set search_path = ''
as $$
  select t.id, t.conversation_id, t.role, case when p_chars is null then t.text else left(t.text, p_chars) end, t.at
  from (
    select stored.seq, stored.at, max(stored.seq) over (partition by stored.conversation_id) as place
    from (
      select l.seq, l.at, l.conversation_id from public.companion_turns l
      where l.user_id = p_user_id order by l.seq desc limit greatest(p_turns, 200)
    ) stored
    order by 3 desc, 2 desc, 1 desc limit greatest(p_turns, 0)
  ) chosen
  join public.companion_turns t on t.user_id = p_user_id and t.seq = chosen.seq
  order by chosen.place, chosen.at, chosen.seq
$$;

-- A user's latest summary; none or one row. One that is dated in the future (by a clock that was wrong) is the latest
-- only if there is no other. Workers' clocks may be ahead of this one by a minute.
create or replace function public.companion_latest_summary(p_user_id text)
returns table (conversation_id text, text text, at timestamptz)
language sql stable set search_path = ''
as $$
  select s.conversation_id, s.text, s.at
  from public.companion_summaries s where s.user_id = p_user_id
  order by s.at > now() + interval '1 minute', s.at desc limit 1
$$;

-- What a conversation starts from, in one request and in one snapshot: as companion_context, with the last turns in the
-- order above, each at most p_chars characters long.
create or replace function public.companion_start(p_user_id text, p_turns integer, p_chars integer) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object(
    'profile', (select p.text from public.companion_profiles p where p.user_id = p_user_id),
    'turns', (
      select coalesce(
        jsonb_agg(
          jsonb_build_object(
            'id', t.id, 'conversation_id', t.conversation_id, 'role', t.role, 'text', t.text, 'at', t.at
          ) order by t.place
        ),
        '[]'::jsonb
      )
      from public.companion_last_turns(p_user_id, p_turns, p_chars)
        with ordinality as t (id, conversation_id, role, text, at, place)
    ),
    'summary', (
      select jsonb_build_object('conversation_id', s.conversation_id, 'text', s.text, 'at', s.at)
      from public.companion_latest_summary(p_user_id) s
    ),
    'state', (select s.state from public.companion_states s where s.user_id = p_user_id)
  )
$$;

-- The pending rows of the outbox, the longest pending first. Rows written in the last p_older_than seconds are left to
-- their writers. Ages are of this database's clock alone. One that was set back leaves rows that seem to be written in
-- the future: their age is unknown, and nothing is lost if they are delivered at once.
create or replace function public.companion_pending(p_limit integer, p_older_than double precision)
returns table (user_id text, what text, version bigint)
language sql stable set search_path = ''
as $$
  select o.user_id, o.what, o.version
  from public.companion_outbox o
  where o.version > o.delivered
    and (p_older_than <= 0 or o.written_at <= now() - p_older_than * interval '1 second' or o.written_at > now())
  order by o.written_at
  limit greatest(p_limit, 0)
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on function
  public.companion_last_turns(text, integer, integer), public.companion_latest_summary(text),
  public.companion_start(text, integer, integer), public.companion_pending(integer, double precision)
from public, anon, authenticated, service_role;
grant execute on function
  public.companion_last_turns(text, integer, integer), public.companion_latest_summary(text),
  public.companion_start(text, integer, integer)
to authenticated, service_role;
grant execute on function public.companion_pending(integer, double precision) to service_role;
