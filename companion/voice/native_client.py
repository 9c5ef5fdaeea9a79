"""Jobs that are threads of one process, where somebody has chosen that.

LiveKit makes its native client when it is first needed. Two threads that need it at the same moment make two, and one
of them never hears from its room again: a silent call.
"""

from __future__ import annotations

from threading import Lock

from livekit import rtc
from livekit.agents import JobExecutorType, JobProcess

_making = Lock()


def make_native_client(process: JobProcess) -> None:
    """Make it before a thread takes its first job. A job that is a process makes its own when it needs it."""
    if process.executor_type is JobExecutorType.THREAD:
        with _making:
            rtc.AudioResampler(16_000, 8_000)  # whatever needs it
