"""This layer against its peers, measured in one run: ``make bench``."""
