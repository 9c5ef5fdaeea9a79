"""Benchmarks of this layer against other libraries, measured in one run: ``make bench``."""
