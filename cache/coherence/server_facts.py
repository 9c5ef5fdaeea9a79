"""What a server says about itself: its run, the history of its data, and the mark in it (see ``server_epoch``)."""

from __future__ import annotations

from typing import Any, Final

from ..transport.packing import info_of

GET_EPOCH: Final = (("INFO", "server"), ("INFO", "replication"))


def epoch_and_mark(replies: list[Any]) -> tuple[str, str]:
    """Read the replies to ``GET_EPOCH`` and to a GET of the mark. An epoch that may not be read is empty."""
    server, replication, mark = replies[:3]
    run, history = info_of(server).get("run_id"), info_of(replication).get("master_replid")
    mark = mark.decode(errors="replace") if isinstance(mark, bytes) else ""
    return f"{run}:{history}" if run and history else "", mark
