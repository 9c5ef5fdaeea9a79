"""What is kept of the current caller: profile, summary, state and memories, read through the cache."""
