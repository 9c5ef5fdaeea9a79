-- A profile that is stored late: it says when it was written, so that of two texts the newer one is known, whichever
-- comes here first.
--
-- Applying this file again changes nothing.

-- Now, unless whoever writes has said when the text was written.
create or replace function public.companion_touch() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.updated_at := coalesce(nullif(current_setting('companion.written_at', true), '')::timestamptz, now());
  return new;
end
$$;

drop function if exists public.companion_swap_profile(text, text, text);

-- Replaces a user's profile if it is still the one that is named; null: if there is none. Whether it did.
create or replace function public.companion_swap_profile(
  p_user_id text, p_text text, p_instead_of text, p_at timestamptz
)
returns boolean
language plpgsql set search_path = ''
as $$
begin
  if p_instead_of is null then
    insert into public.companion_profiles (user_id, text, updated_at) values (p_user_id, p_text, p_at)
    on conflict (user_id) do nothing;
    return found;
  end if;
  perform set_config('companion.written_at', p_at::text, true);
  update public.companion_profiles p set text = p_text where p.user_id = p_user_id and p.text = p_instead_of;
  return found;
end
$$;

revoke all on function public.companion_swap_profile(text, text, text, timestamptz)
from public, anon, authenticated, service_role;
grant execute on function public.companion_swap_profile(text, text, text, timestamptz) to service_role;
