-- A person who is known by another id from now on: all that is kept of them is moved there, and the old id is erased. For
-- callers on the phone, whose ids were numbers and become hashes.
--
-- Applying this file again changes nothing.

-- Moves what is kept under each of the old ids. The erasures of those that had anything, as of companion_erase. Of what
-- both ids have, that of the new one stays: turns and facts, one summary for each conversation, one state; lines of the
-- profile are joined. The tombstone of the old id names the new one, where late writes belong. Runs as its owner, who
-- may change versions and write erasures.
create or replace function public.companion_move(p_earlier text[], p_user_id text)
returns table (user_id text, number bigint)
language plpgsql security definer set search_path = ''
as $$
#variable_conflict use_column
declare
  old text;
  theirs text;
  known text;
  here text;
  there text;
  gone jsonb;
  before bigint;
begin
  -- The move is a write of now, whatever was erased before; see companion_refuse_erased.
  perform set_config(
    'request.headers', '{"x-companion": "move", "x-companion-since": "9223372036854775807"}', true
  );
  -- An id that one of these was moved to is an earlier id as well: of another key, or before the key was removed.
  for old in
    select a.id from (
      select e.id, e.place from unnest(p_earlier) with ordinality as e (id, place)
      union all
      select t.moved_to, null from unnest(p_earlier || p_user_id) as e (id)
      join public.companion_erasures t on t.person = public.companion_person(e.id)
    ) a
    where a.id <> p_user_id group by a.id order by min(a.place)
  loop
    continue when not (
      exists (select from public.companion_versions v where v.user_id = old)
      or exists (select from public.companion_outbox o where o.user_id = old)
      or exists (select from public.companion_profile_versions v where v.user_id = old)
      or exists (select from public.companion_removed_memories r where r.user_id = old)
      or exists (select from public.companion_forgotten f where f.user_id = old)
    );
    -- Of both, in the order in which companion_erase takes them, which avoids deadlocks: a write is before the
    -- move or after it.
    perform from public.companion_profiles p where p.user_id in (old, p_user_id) order by p.user_id for update;
    perform pg_advisory_xact_lock(hashtextextended(locked.id, 13))
    from (select unnest(array[old, p_user_id]) as id order by 1) locked;
    insert into public.companion_versions as v (user_id, version) values (old, 1)
    on conflict (user_id) do update set version = v.version + 1;
    select case when e.moved_to is null then e.number else e.erased end into before
    from public.companion_erasures e where e.person = public.companion_person(old);
    -- Of what is kept here, for the functions that follow a person who was moved.
    update public.companion_erasures e set moved_to = null where e.person = public.companion_person(old);
    -- What the person asked to forget under one id does not come back with the other, whichever is moved first.
    for here, there in values (old, p_user_id), (p_user_id, old) loop
      select jsonb_agg(distinct jsonb_build_object(
        'text', l.line, 'words', '[]'::jsonb, 'salt', split_part(f.key, '$', 1), 'hashes', f.words
      )) into gone
      from (
        select p.text from public.companion_profiles p where p.user_id = here
        union all select v.text from public.companion_profile_versions v where v.user_id = here
        union all select m.text from public.companion_memories m where m.user_id = here
      ) t, public.companion_lines(t.text) l, public.companion_forgotten f
      where f.user_id = there and f.key = public.companion_forgotten_key(f.key, l.line);
      if gone is not null then
        perform public.companion_forget_things(here, gone);
      end if;
      continue when not exists (select from public.companion_forgotten f where f.user_id = there);
      update public.companion_summaries s set text = ''
      where s.user_id = here and s.text <> '' and public.companion_mentions_forgotten(s.text, there);
      update public.companion_turns t set skipped = true
      from (  -- of those that may become a topic
        select l.seq, l.text from public.companion_turns l where l.user_id = here order by l.seq desc limit 200
      ) last
      where t.seq = last.seq and not t.skipped and public.companion_mentions_forgotten(last.text, there);
    end loop;
    update public.companion_profile_versions v
    set user_id = p_user_id, replaced_at = coalesce(v.replaced_at, now())
    where v.user_id = old and not exists (
      select from public.companion_profile_versions n where n.user_id = p_user_id and n.write_id = v.write_id
    );
    update public.companion_turns t set user_id = p_user_id
    where t.user_id = old and not exists (
      select from public.companion_turns n where n.user_id = p_user_id and n.id = t.id
    );
    update public.companion_memories m set user_id = p_user_id
    where m.user_id = old and not exists (
      select from public.companion_memories n
      where n.user_id = p_user_id and (
        n.id = m.id or md5(public.companion_fact_key(n.text)) = md5(public.companion_fact_key(m.text))
      )
    );
    update public.companion_summaries s set user_id = p_user_id
    where s.user_id = old and not exists (
      select from public.companion_summaries n
      where n.user_id = p_user_id and n.conversation_id = s.conversation_id
    );
    update public.companion_states s set user_id = p_user_id
    where s.user_id = old and not exists (select from public.companion_states n where n.user_id = p_user_id);
    insert into public.companion_removed_memories (user_id, id, removed_at)
    select p_user_id, r.id, r.removed_at from public.companion_removed_memories r where r.user_id = old
    on conflict do nothing;
    update public.companion_forgotten f set user_id = p_user_id
    where f.user_id = old and not exists (
      select from public.companion_forgotten n where n.user_id = p_user_id and n.key = f.key
    );
    select p.text into theirs from public.companion_profiles p where p.user_id = old;
    select p.text into known from public.companion_profiles p where p.user_id = p_user_id;
    if theirs is not null then
      perform public.companion_write_profile(
        p_user_id,
        concat_ws(E'\n', known, (
          select string_agg(t.line, E'\n' order by t.place)
          from public.companion_lines(theirs) t
          where t.line not in (select k.line from public.companion_lines(coalesce(known, '')) k)
        )),
        now(), 'merge', null, null, true
      );
    end if;
    lock table public.companion_erasures in share row exclusive mode;
    update public.companion_erasures e set moved_to = p_user_id where e.moved_to = old;
    -- The person is known by that id again: what waits under it stays there. So moved_to names no id that was moved.
    update public.companion_erasures e set moved_to = p_user_id
    where e.person = public.companion_person(p_user_id) and e.moved_to is not null;
    user_id := old;
    number := public.companion_erase(old);
    update public.companion_erasures e set moved_to = p_user_id, erased = coalesce(before, 0)
    where e.person = public.companion_person(old);
    return next;
  end loop;
end
$$;

-- Where a write under this id belongs that was refused because the person was moved, with the number of the latest
-- erasure. No row: the person was erased after the erasure of number p_since, or was not moved.
create or replace function public.companion_moved(p_user_id text, p_since bigint)
returns table (user_id text, number bigint)
language sql stable security definer set search_path = ''
as $$
  select e.moved_to, (select max(l.number) from public.companion_erasures l)
  from public.companion_erasures e
  where e.person = public.companion_person(p_user_id) and e.moved_to is not null and e.erased <= p_since
$$;

revoke all on function public.companion_move(text[], text), public.companion_moved(text, bigint)
from public, anon, authenticated, service_role;
grant execute on function public.companion_move(text[], text), public.companion_moved(text, bigint) to service_role;
