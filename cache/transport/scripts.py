"""The few steps that must be one step on the server, as Lua, and their names.

Called by digest (EVALSHA). A server that does not know a script (restarted, SCRIPT FLUSH) says NOSCRIPT and is
given it; the hot path never sends a script's text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its digest."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# KEYS: key, lease, stale. ARGV: token, lease in ms, whether the last good value is wanted.
# The reads also make the server track the keys for whoever calls (the second GET does nothing else), so that a waiter
# is told when they change, and whoever loads is told when his lease is gone.
ACQUIRE = Script("""
local value = redis.call('GET', KEYS[1])
if value then return {1, value} end
local last = false
if ARGV[3] == '1' then last = redis.call('GET', KEYS[3]) end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  redis.call('GET', KEYS[2])
  return {2, last}
end
local left = redis.call('PTTL', KEYS[2])
if left >= 0 then return {0, last, left} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {2, last}
""")
"""The value; or the right to fill it (2); or somebody else has that (0) and for how long.

A lease that never ends is not ours, and nobody would ever get past it: it is taken over.
"""

# KEYS: key, lease, stale. ARGV: token, value, TTL in ms (0: none), TTL of the last good value in ms (0: it stays as it
# is). A TTL of -1 removes instead.
FILL = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '-1' then redis.call('UNLINK', KEYS[1])
elseif ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if ARGV[4] == '-1' then redis.call('UNLINK', KEYS[3])
elseif ARGV[4] ~= '0' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4]) end
redis.call('DEL', KEYS[2])
return 1
""")
"""Fill, if the token is still the one that was granted. Absent means no: an invalidation removes it.

Where the source says that there is none, what there was goes in the same step, and under the same condition.
"""

# KEYS: key, lease, stale. ARGV: value, and the options of SET.
STORE = Script("""
if not redis.call('SET', KEYS[1], unpack(ARGV)) then return 0 end
redis.call('UNLINK', KEYS[2], KEYS[3])
return 1
""")
"""SET, and in the same step the end of every load begun before: it may not fill over this value.

A script and not MULTI, because a server may put a push between the replies inside an EXEC, and because redis-py
cannot run a transaction on a cluster without blocking the loop.
"""

# KEYS: key, lease. ARGV: token, lease in ms, ms that a value to be refreshed has left at most.
REFRESH = Script("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left >= tonumber(ARGV[3]) then return 0 end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
""")
"""The right to fill anew, if the value is still there, still old, and nobody is at it."""

# KEYS: lease. ARGV: token, lease in ms.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[1]) * 6 < ARGV[2] * 5 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""")
"""Whether the lease is still ours; renewed if it is not nearly new, so that looking does not make it change."""

# KEYS: lease. ARGV: token.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

ALL = (ACQUIRE, FILL, STORE, REFRESH, RENEW, RELEASE)
