-- Older projects grant every new sequence to everybody: with nextval or setval a visitor could have ruined the order of
-- the turns. No role needs a right for an identity column.
--
-- Applying this file again changes nothing.

revoke all on sequence
  public.companion_turns_seq_seq, public.companion_memories_seq_seq, public.companion_profile_versions_version_seq
from public, anon, authenticated, service_role;
