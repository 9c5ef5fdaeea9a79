"""Creates LiveKit's native client before job threads race for it (``JobExecutorType.THREAD``).

LiveKit creates the client on first use, without a lock. Two threads that use it first at the same moment create two
clients, and one of the two jobs never receives another event of its room: a silent call, at whose end 15 seconds later
the client ends the worker.
"""

from __future__ import annotations

from threading import Lock

from livekit import rtc
from livekit.agents import JobExecutorType, JobProcess

_creating = Lock()


def make_native_client(process: JobProcess) -> None:
    """Create the client, as the server's ``setup_fnc`` or a job's first step.

    A job in a process of its own needs nothing: it has no race.
    """
    if process.executor_type is JobExecutorType.THREAD:
        with _creating:
            rtc.AudioResampler(16_000, 8_000)  # the cheapest call that creates it
