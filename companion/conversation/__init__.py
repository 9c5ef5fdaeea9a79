"""One conversation: ``attach``, prefetch and greeting before it, hook and record during it, the wrap-up after it."""
