"""Lua scripts: what must be one step on the server.

They are called by digest (EVALSHA). A server that does not have a script (restart, SCRIPT FLUSH) replies NOSCRIPT and
then gets it; the hot path never sends the text of a script. They delete with DEL, which every server has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from .client import Command


class Script:
    """A Lua script.

    Attributes:
        digest: its SHA-1, by which it is called.
        steps: where a server runs no scripts: the commands that do as much, made of the command that deletes, the keys
            and the arguments. The reply to the last is the script's.
    """

    def __init__(
        self,
        text: str,
        steps: Callable[[str, Sequence[Any], Sequence[Any]], tuple[Command, ...]] | None = None,
    ) -> None:
        self.text, self.steps = text, steps
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# KEYS: key, lease, stale. ARGV: token, lease in ms, whether the last good value is wanted.
# The reads also make the server track the keys for the caller (the second GET has no other purpose), so that a waiter
# is notified when they change, and a leader when it loses its lease.
ACQUIRE = Script("""
local value = redis.call('GET', KEYS[1])
if value then return {1, value} end
local last = false
if ARGV[3] == '1' then last = redis.call('GET', KEYS[3]) end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local left = redis.call('PTTL', KEYS[2])
  local failed = left >= 0 and redis.call('GET', KEYS[2]) == 'failed'
  if failed and last then return {0, last, 0} end
  if left >= 0 and not failed then return {0, last, left} end
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
redis.call('GET', KEYS[2])
return {2, last}
""")
"""Replies: 1 and the value; 2, the lease is granted; 0, another caller has it, and for how many milliseconds.

2 and 0 bring the last good value. A lease without expiry is not ours and would block the key for ever: it is replaced.
So is one whose load has failed, unless there is a last good value to answer with.
"""

# KEYS: key, lease, stale. ARGV: token, value, TTL in ms (0: none), TTL of the last good value in ms (0: it stays as it
# is). A TTL of -1 deletes.
FILL = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '-1' then redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if ARGV[4] == '-1' then redis.call('DEL', KEYS[3])
elseif ARGV[4] ~= '0' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4]) end
redis.call('DEL', KEYS[2])
return 1
""")
"""Fill if the lease still holds the token that was granted. An invalidation deletes it: no token, no fill.

If the source has no value, the old one is deleted in the same step, under the same condition.
"""

# KEYS: key, lease, stale. ARGV: value, and the options of SET.
STORE = Script(
    """
if not redis.call('SET', KEYS[1], unpack(ARGV)) then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
""",
    steps=lambda delete, names, args: ((delete, *names[1:]), ("SET", names[0], *args)),  # without scripts nothing fills
)
"""SET, and in the same step delete the guards: no load that began before may fill over this value.

A script and not MULTI, because a server may send a push between the replies of an EXEC, and because redis-py blocks
the loop when it runs a transaction on a cluster.
"""

# KEYS: key, lease, stale. ARGV: what to add, TTL of a new counter in ms (0: none).
INCREMENT = Script("""
if ARGV[2] == '0' or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  redis.call('INCRBY', KEYS[1], ARGV[1])
end
redis.call('DEL', KEYS[2], KEYS[3])
return redis.call('GET', KEYS[1])
""")
"""Add to a counter, or begin one. The reply is text: a Lua number has 53 bits."""

# KEYS: key, lease. ARGV: token, lease in ms, ms that a value to be refreshed has left at most.
REFRESH = Script("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left >= tonumber(ARGV[3]) then return 0 end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
""")
"""Grant the lease for a refresh if the value exists, is old enough, and no other caller has the lease."""

# KEYS: lease. ARGV: token, lease in ms.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[1]) * 6 < ARGV[2] * 5 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""")
"""Whether the lease is still ours. It is renewed only after a sixth of its life: each renewal pushes a change."""

# KEYS: lease, stale. ARGV: token, ms for which the load counts as failed (0: it did not fail).
RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' and redis.call('PTTL', KEYS[2]) ~= -2 then
  redis.call('SET', KEYS[1], 'failed', 'PX', ARGV[2])
  return 1
end
return redis.call('DEL', KEYS[1])
""")
"""Release the lease, or a lock, which is given twice.

If its load failed and there is a last good value, that is served at once for a while."""

ALL = (ACQUIRE, FILL, STORE, INCREMENT, REFRESH, RENEW, RELEASE)
