"""What a server says about itself: its run, the history of its data, and the mark in it (see ``server_epoch``)."""

from __future__ import annotations

import re
from typing import Any, Final

GET_EPOCH: Final = (("INFO", "server"), ("INFO", "replication"))


def epoch_and_mark(replies: list[Any]) -> tuple[str, str]:
    """Read the replies to ``GET_EPOCH`` and to a GET of the mark. An epoch that may not be read is empty."""
    server, replication, mark = (
        reply.decode(errors="replace") if isinstance(reply, bytes) else reply if isinstance(reply, str) else ""
        for reply in replies[:3]
    )
    run = re.search(r"^run_id:(\w+)", server, re.MULTILINE)
    history = re.search(r"^master_replid:(\w+)", replication, re.MULTILINE)
    return f"{run[1]}:{history[1]}" if run and history else "", mark
