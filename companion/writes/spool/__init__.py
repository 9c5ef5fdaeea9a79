"""The spool: on the disk, the writes that the store has not taken, and the wishes to erase persons."""

from .spool import Spool
from .spooler import InFlight, Spooler

__all__ = ["InFlight", "Spool", "Spooler"]
