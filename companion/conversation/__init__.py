"""One conversation: prefetch and greeting before it, the turn log during it, the wrap-up after it."""
