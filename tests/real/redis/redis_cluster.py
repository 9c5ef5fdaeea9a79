"""Starts real Redis clusters of one node and of two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.real.redis.redis_server import RedisServer, unused_port


@contextmanager
def clusters(directory: Callable[[], Path]) -> Iterator[dict[str, list[RedisServer]]]:
    """The nodes of a "cluster of one" and of a "cluster of two". Redis takes two seconds to form a cluster.

    Args:
        directory: makes a directory of its own for each node.
    """
    with ExitStack() as stack:
        nodes: list[RedisServer] = []
        for _ in range(3):
            nodes.append(_node(directory()))
            stack.callback(nodes[-1].stop)
        formed = {"cluster of one": nodes[:1], "cluster of two": nodes[1:]}
        for members in formed.values():
            _form(members)
        give_up = time.monotonic() + 20
        while not all("cluster_state:ok" in server.cli("CLUSTER", "INFO") for server in nodes):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield formed


def _node(directory: Path) -> RedisServer:
    while True:
        while (port := unused_port()) > 55_535:  # the nodes' own port is 10,000 higher
            pass
        args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        try:
            return RedisServer(directory, port=port, args=args).start()
        except RuntimeError as error:  # one of the two ports was taken between the choice and the start
            if "Address already in use" not in str(error):
                raise


def _form(nodes: list[RedisServer]) -> None:
    """Form one cluster of the nodes, with slots distributed evenly."""
    share = 16384 // len(nodes)
    for number, server in enumerate(nodes):
        server.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        server.cli("CLUSTER", "ADDSLOTS", *range(number * share, (number + 1) * share))
        server.cli("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
