"""Availability logging: one line when a problem begins, one when it ends, none in between."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from cache import RedisCache
from cache.core.availability import Availability
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.faults


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.INFO, "cache")

    class Lines(list[str]):
        def __eq__(self, other: object) -> bool:
            said = [record.getMessage().removeprefix("[REDIS] ") for record in caplog.records if record.name == "cache"]
            return [re.split(r" \(|\.", line)[0] for line in said] == other

        def __repr__(self) -> str:
            return caplog.text

    return Lines()


async def test_a_short_silence_is_no_outage_and_a_longer_one_is(lines: list[str]) -> None:
    errors: list[int] = []
    availability = Availability("redis://here", lambda: errors.append(1))
    for now in (10.1, 10.3, 10.5):
        availability.check(now, 10.0, "slow")
    assert lines == []
    for now in (10.6, 11.0, 20.0):
        availability.check(now, 10.0, "slow")
    assert lines == ["Warning: Connection failed"]
    assert len(errors) == 1
    for now in (20.1, 20.2):
        availability.check(now, None, "")
    assert lines == ["Warning: Connection failed", "Connected"]


def test_a_problem_is_logged_at_its_begin_and_end(lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    availability = Availability("redis://here", lambda: None)
    for tenth in range(50):
        availability.failed("commands are refused (OOM)", tenth / 10, "commands are refused (OOM)")
        availability.check(tenth / 10, None, "")
    assert lines == ["Warning: commands are refused"]
    for tenth in range(50, 100):
        availability.check(tenth / 10, None, "")
    assert lines == ["Warning: commands are refused", "No more: commands are refused"]
    assert "(50 times)" in caplog.text
    availability.failed("commands are refused (OOM)", 10.0, "commands are refused (OOM)")
    assert lines == ["Warning: commands are refused", "No more: commands are refused", "Warning: commands are refused"]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("OOM", ("CONFIG", "SET", "maxmemory", "1")),
        ("NOPERM", ("ACL", "SETUSER", "default", "-set")),
    ],
)
async def test_an_error_in_a_script_is_logged_with_its_code(
    own_cache: RedisCache, own_redis: RedisServer, caplog: pytest.LogCaptureFixture, code: str, fault: tuple[str, ...]
) -> None:
    own_redis.cli(*fault)
    for number in range(20):
        assert not await own_cache.set(f"k{number}", "v")
    assert caplog.text.count(f"commands are refused ({code})") == 1
    assert (await own_cache.get_stats())["connection_errors"] >= 20


async def test_a_network_that_becomes_slow_is_an_outage_until_it_is_not(
    lines: list[str], own_redis: RedisServer, make_cache: Callable[..., RedisCache]
) -> None:
    with BackgroundProxy(own_redis.port) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await cache.initialize()
        await until(lambda: lines == ["Connected"])
        await proxy.apply(lambda inner: setattr(inner, "delay_to_client", 0.1))

        async def slow() -> bool:
            await cache.get("k")  # an unused connection is looked at every half minute
            return lines == ["Connected", "Warning: Connection failed"]

        await until(slow)
        assert not cache.connected
        await proxy.apply(lambda inner: setattr(inner, "delay_to_client", 0.0))
        await until(lambda: lines == ["Connected", "Warning: Connection failed", "Connected"])
