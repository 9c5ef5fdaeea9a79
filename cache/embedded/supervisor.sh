# Runs a private redis-server until it ends, by itself or with its owner. Arguments: the socket, the server's binary.
#
# The owner holds the other end of the standard input. The kernel closes that end however the owner ends, SIGKILL
# included; a child that the owner forked without exec counts as the owner. PR_SET_PDEATHSIG would need no process in
# between, but macOS has nothing like it, and on Linux it fires when the thread that forked ends.
# Signals are for the process group ("0"), which is ours alone: what is on PATH may be a wrapper.
clean() { rm -f "$socket"; rmdir "${socket%/*}" 2>/dev/null; } # the directory only if it holds nothing else, in /tmp
socket=$1 server=$2
(
  trap 'clean; kill -9 0' TERM # while the server runs, once it has ended
  # A log of every write, synced once a second: a crash costs a second at most, a killed server nothing. Snapshots would
  # be smaller, but lose minutes. All keys may go, not only those with a TTL: data survives restarts here, so keys
  # without one would fill the server for good, and no write would succeed again. Nothing in a cache is the only copy.
  "$server" --port 0 --unixsocket "$socket" --unixsocketperm 700 --maxclients 1000 --loglevel warning \
    --save '' --appendonly yes --appendfsync everysec --auto-aof-rewrite-min-size 4mb \
    --maxmemory 64mb --maxmemory-policy allkeys-lru
  clean
  kill -9 0
) &
running=$!
trap '' TERM
read line
clean  # while the server still answers: a program that starts now must not join it, but wait for the lock
kill 0 # at SIGTERM Redis writes and syncs its log, as at SHUTDOWN
(sleep 2; kill -9 0) &
wait "$running"
kill -9 0
