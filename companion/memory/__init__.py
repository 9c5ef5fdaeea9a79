"""What is kept of the current caller: profile, summary, state and facts, read through the cache; and its deletion."""
