-- Forgetting one thing: a line of the profile or a fact leaves the profile, every version of it, the facts and the
-- summaries, and turns that mention it are not brought up again. A record of hashes keeps a write that comes late from
-- bringing it back.
--
-- Applying this file again changes nothing.

-- A turn that is skipped becomes no topic, no summary and no greeting: it asks to forget, or mentions what is forgotten.
alter table public.companion_turns add column if not exists skipped boolean not null default false;

-- What was forgotten, as hashes: of the text (key, which begins with their random salt), and of its words. number is in
-- the order in which a user's things were forgotten. A row is deleted when the person says it again.
create table if not exists public.companion_forgotten (
  user_id text not null,
  key text not null,
  words jsonb not null check (jsonb_typeof(words) = 'array'),
  number bigint generated always as identity,
  primary key (user_id, key)
);

-- The key of a text, with the salt of this key.
create or replace function public.companion_forgotten_key(p_key text, p_text text) returns text
language sql immutable parallel safe set search_path = ''
as $$
  select s.salt || '$' || encode(sha256(convert_to(s.salt || chr(31) || public.companion_fact_key(p_text), 'UTF8')), 'hex')
  from (select split_part(p_key, '$', 1) as salt) s
$$;

-- The lines of a profile, in order.
create or replace function public.companion_lines(p_text text) returns table (line text, place bigint)
language sql immutable parallel safe set search_path = ''
as $$
  select btrim(l.line), l.place
  from regexp_split_to_table(p_text, '[\n\r\v\f\x1c-\x1e\u0085\u2028\u2029]+') with ordinality as l (line, place)
  where btrim(l.line) <> ''
$$;

-- A text without the lines that have one of these fact keys; the text as it is, if it has none of them.
create or replace function public.companion_without_lines(p_text text, p_keys text[]) returns text
language sql immutable parallel safe set search_path = ''
as $$
  select case
    when bool_or(public.companion_fact_key(l.line) = any (p_keys)) then coalesce(
      string_agg(l.line, E'\n' order by l.place) filter (where public.companion_fact_key(l.line) <> all (p_keys)), ''
    )
    else p_text
  end
  from public.companion_lines(p_text) l
$$;

-- A text in lower case, without accents, with blanks between its words. What separates words is listed, and not what
-- they are made of: a combining mark is part of a word (the vowels of Hindi and Thai), whatever the locale takes it for.
-- As in companion/store/word_stems.py.
create or replace function public.companion_plain(p_text text) returns text
language sql immutable parallel safe set search_path = ''
as $$
  select case
    -- Without regular expressions, which take several times as long.
    when octet_length(p_text) = length(p_text) then translate(
      lower(p_text),
      E'\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f'
      '!"#$%&\'()*+,-./:;<=>?@[\\]^`{|}~\x7f',
      repeat(' ', 63)
    )
    else regexp_replace(
      regexp_replace(
        normalize(lower(translate(p_text, 'İΣς', 'iσσ')), nfkd),
        '[\u0001-/:-@\[-^`{-\u00ac\u00ae-\u00bf\u00d7\u00f7\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4'
        '\u060c\u061b\u061f\u066a-\u066d\u06d4\u0700-\u070d\u0964\u0965\u0970\u0e4f\u0e5a\u0e5b\u0f04-\u0f14\u104a-\u104f'
        '\u1361-\u1368\u166e\u1680\u17d4-\u17d6\u17d8-\u17db\u1800-\u180a\u2000-\u200b\u200e-\u206f\u207a-\u207e\u208a-\u208e'
        '\u20a0-\u20cf\u2190-\u2bff\u2e00-\u2e7f\u3000-\u3003\u3008-\u3020\u3030\u303d-\u303f\u30a0\u30fb\ua92e\ua9c1-\ua9cd'
        '\ufd3e\ufd3f\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff0f\uff1a-\uff20\uff61-\uff65\ufffd\U0001f000-\U0001faff]+',
        ' ', 'g'
      ),
      '[\u00ad\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u200c\u200d\u20d0-\u20f0\u3099\u309a\ufe00-\ufe0f]', '', 'g'
    )
  end
$$;

-- Whether a text has at least half of the words: letters and digits without accents, in their stems. A short word
-- counts as a whole; a word of a script without blanks counts anywhere.
create or replace function public.companion_mentions(p_text text, p_words jsonb) returns boolean
language sql immutable parallel safe set search_path = ''
as $$
  select count(*) > 0 and 2 * count(*) filter (
    where case
      when w.word ~ '[\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1b7f\u2e80-\uffff\U0001b000-\U0001b2ff\U00020000-\U0003ffff]'
        then strpos(t.plain, w.word) > 0
      when length(w.word) < 4 then strpos(t.plain, ' ' || w.word || ' ') > 0 or strpos(t.plain, ' ' || w.word || 's ') > 0
      else strpos(t.plain, ' ' || w.word) > 0
    end
  ) >= count(*)
  from jsonb_array_elements_text(p_words) as w (word),
    (select ' ' || public.companion_plain(p_text) || ' ' as plain offset 0) t  -- once, and not for each word
$$;

-- Whether a text mentions something that the user asked to forget, of which only hashes are kept: at least half of its
-- words, in the stems that the companion makes; of a sentence without blanks, its parts of up to twelve characters.
create or replace function public.companion_mentions_forgotten(p_text text, p_user_id text) returns boolean
language sql stable set search_path = ''
as $$
  with words as (
    select distinct w.word
    from unnest(string_to_array(public.companion_plain(left(p_text, 10000)), ' ')) as w (word) where w.word <> ''
  ), stems as materialized (
    select case
      when length(w.word) > 6 and w.word like '%ing' then left(w.word, -3)
      when length(w.word) > 3 and w.word like '%s' and w.word not like '%ss' then left(w.word, -1)
      else w.word
    end as stem
    from words w
    union
    select left(p.part, l.length)
    from words w,
      lateral (
        select string_agg(c.char, '') over (order by c.place rows between current row and 11 following) as part
        from unnest(string_to_array(w.word, null)) with ordinality c (char, place)
      ) p,
      generate_series(1, 12) l (length)
    where w.word ~ '[\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1b7f\u2e80-\uffff\U0001b000-\U0001b2ff\U00020000-\U0003ffff]'
  )
  select exists (
    select from public.companion_forgotten f
    where f.user_id = p_user_id and f.words <> '[]' and jsonb_array_length(f.words) <= 2 * (
      select count(*) from stems s
      where f.words ? encode(sha256(convert_to(split_part(f.key, '$', 1) || chr(31) || s.stem, 'UTF8')), 'hex')
    )
  )
$$;

-- Forgets things, each {"text": a line of the profile or of a fact, "words": its words, "salt", "hashes": of those with
-- the salt}. Returns what was removed; of a person who was moved, also under the new id.
-- Runs as its owner, who may change versions. Locks in the order of companion_erase.
create or replace function public.companion_forget_things(p_user_id text, p_things jsonb) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
  keys text[];
  lines jsonb;
  facts jsonb;
  moved text;
  there jsonb := '{"lines": [], "facts": []}';
begin
  select e.moved_to into moved from public.companion_erasures e where e.person = public.companion_person(p_user_id);
  if moved <> p_user_id then
    there := public.companion_forget_things(moved, p_things);
  end if;
  select array_agg(public.companion_fact_key(t.thing ->> 'text')) into keys
  from jsonb_array_elements(p_things) as t (thing);
  perform from public.companion_profiles p where p.user_id = p_user_id for update;
  perform pg_advisory_xact_lock(hashtextextended(p_user_id, 13));
  select coalesce(jsonb_agg(l.line order by l.place), '[]') into lines
  from public.companion_profiles p, public.companion_lines(p.text) l
  where p.user_id = p_user_id and public.companion_fact_key(l.line) = any (keys);
  if lines <> '[]' then
    perform set_config('companion.author', 'tool', true);
    update public.companion_profiles p set text = public.companion_without_lines(p.text, keys)
    where p.user_id = p_user_id;
    perform set_config('companion.author', '', true);
  end if;
  update public.companion_profile_versions v set text = public.companion_without_lines(v.text, keys)
  where v.user_id = p_user_id and v.text <> public.companion_without_lines(v.text, keys);
  -- A fact may be several lines of a profile that had no room for them.
  select coalesce(jsonb_agg(l.line order by m.at, m.seq, l.place), '[]') into facts
  from public.companion_memories m, public.companion_lines(m.text) l
  where m.user_id = p_user_id and public.companion_fact_key(l.line) = any (keys);
  delete from public.companion_memories m
  where m.user_id = p_user_id and m.text <> '' and public.companion_without_lines(m.text, keys) = '';
  update public.companion_memories m set text = public.companion_without_lines(m.text, keys)
  where m.user_id = p_user_id and m.text <> public.companion_without_lines(m.text, keys);
  update public.companion_summaries s set text = ''
  where s.user_id = p_user_id and exists (
    select from jsonb_array_elements(p_things) as t (thing)
    where public.companion_mentions(s.text, t.thing -> 'words')
  );
  update public.companion_turns u set skipped = true
  where u.user_id = p_user_id and not u.skipped and exists (
    select from jsonb_array_elements(p_things) as t (thing)
    where public.companion_mentions(u.text, t.thing -> 'words')
  );
  delete from public.companion_forgotten f using jsonb_array_elements(p_things) as t (thing)
  where f.user_id = p_user_id and f.key = public.companion_forgotten_key(f.key, t.thing ->> 'text');
  insert into public.companion_forgotten (user_id, key, words)
  select distinct on (2) p_user_id, public.companion_forgotten_key(t.thing ->> 'salt', t.thing ->> 'text'), t.thing -> 'hashes'
  from jsonb_array_elements(p_things) as t (thing);
  return jsonb_build_object('lines', there -> 'lines' || lines, 'facts', there -> 'facts' || facts);
end
$$;

-- Refuses a late write of the companion, with status 409, if the user has asked to forget something since the write was
-- cleared of what was forgotten: up to which number, is in a header. The triggers before it hold a lock that an erasure
-- and a forgetting wait for, and the other way round.
create or replace function public.companion_refuse_forgotten() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  known text := nullif(current_setting('request.headers', true), '')::json ->> 'x-companion-forgotten';
begin
  if known is not null and exists (
    select from public.companion_forgotten f where f.user_id = new.user_id and f.number > known::bigint
  ) then
    raise exception 'forgotten' using errcode = 'PT409';
  end if;
  return new;
end
$$;

do $$
declare
  kind text;
begin
  foreach kind in array array['profiles', 'turns', 'memories', 'summaries'] loop
    execute format(
      'create or replace trigger companion_%1$s_known before insert or update on public.companion_%1$s for each row'
      ' when (nullif(current_setting(''request.headers'', true), '''') is not null)'
      ' execute function public.companion_refuse_forgotten()', kind
    );
  end loop;
end
$$;

-- What a person says again is no longer forgotten. Late writes are cleared of it before they come here. Once a
-- statement, and quickly for users who have forgotten nothing.
create or replace function public.companion_said_again() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  delete from public.companion_forgotten f
  using (
    select a.user_id, l.line
    from added a, lateral (select c.line from public.companion_lines(a.text) c union all select a.text) l
    where exists (select from public.companion_forgotten o where o.user_id = a.user_id)
  ) again
  where f.user_id = again.user_id and f.key = public.companion_forgotten_key(f.key, again.line);
  return null;
end
$$;

create or replace trigger companion_profiles_said_again after insert on public.companion_profiles
referencing new table as added for each statement execute function public.companion_said_again();
create or replace trigger companion_profiles_said_again_later after update on public.companion_profiles
referencing new table as added for each statement execute function public.companion_said_again();
create or replace trigger companion_memories_said_again after insert on public.companion_memories
referencing new table as added for each statement execute function public.companion_said_again();

-- What a conversation starts from: as companion_start, with the ids of the turns that are skipped.
create or replace function public.companion_begin(p_user_id text, p_turns integer, p_chars integer) returns jsonb
language sql stable set search_path = ''
as $$
  select s.start || jsonb_build_object('skipped', (
    select coalesce(jsonb_agg(t.id), '[]')
    from jsonb_array_elements(s.start -> 'turns') as e (turn)
    join public.companion_turns t on t.user_id = p_user_id and t.id = e.turn ->> 'id' and t.skipped
  ))
  from (select public.companion_start(p_user_id, p_turns, p_chars) as start) s
$$;

-- Who may do what ------------------------------------------------------------------------------------------------

revoke all on table public.companion_forgotten from public, anon, authenticated, service_role;
revoke all on sequence public.companion_forgotten_number_seq from public, anon, authenticated, service_role;
-- What is kept of a person can be deleted.
grant select, delete on table public.companion_forgotten to service_role;
alter table public.companion_forgotten enable row level security;

revoke all on function
  public.companion_forgotten_key(text, text), public.companion_lines(text),
  public.companion_without_lines(text, text[]), public.companion_mentions(text, jsonb),
  public.companion_plain(text), public.companion_mentions_forgotten(text, text),
  public.companion_forget_things(text, jsonb), public.companion_said_again(), public.companion_refuse_forgotten(),
  public.companion_begin(text, integer, integer)
from public, anon, authenticated, service_role;
grant execute on function public.companion_begin(text, integer, integer) to authenticated, service_role;
grant execute on function public.companion_forget_things(text, jsonb) to service_role;
