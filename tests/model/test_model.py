"""The protocols hold in every interleaving, and known-bad protocols fail.

To see a counterexample: ``pytest tests/model -s``.
"""

from __future__ import annotations

import pytest

from . import fill, near

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "protocol", [fill.TokenPerFill(), fill.OneStep(), fill.Store()], ids=lambda p: type(p).__name__
)
def test_a_token_per_fill_holds_also_when_it_is_evicted(protocol: fill.Protocol) -> None:
    result = fill.check(protocol)
    assert result.holds, "\n".join(result.counterexample)
    assert result.states > 1_000  # the search is not trivial


@pytest.mark.parametrize(
    "protocol",
    [
        fill.Protocol(),
        fill.SetNx(),
        fill.LockAndDelete(),
        fill.Generation(),
        fill.ValueFirst(),
        fill.StoreThenFree(),
        fill.TokenPerClient(),
    ],
    ids=lambda protocol: type(protocol).__name__,
)
def test_known_bad_protocols_fail(protocol: fill.Protocol) -> None:
    result = fill.check(protocol)
    assert not result.holds
    print(f"\n{type(protocol).__doc__}\n  " + "\n  ".join(result.counterexample))


@pytest.mark.parametrize(
    "protocol", [fill.TokenPerFill(), fill.OneStep(), fill.Store()], ids=lambda p: type(p).__name__
)
def test_data_deleted_at_the_source_is_not_restored(protocol: fill.Protocol) -> None:
    result = fill.check(protocol, forgets=True)
    assert result.holds, "\n".join(result.counterexample)
    assert result.states > 1_000


@pytest.mark.parametrize(
    "protocol", [fill.NoneIsNotKept(), fill.NoneKeepsTheLastGood()], ids=lambda p: type(p).__name__
)
def test_protocols_that_restore_deleted_data(protocol: fill.Protocol) -> None:
    result = fill.check(protocol, forgets=True)
    assert not result.holds
    print(f"\n{type(protocol).__doc__}\n  " + "\n  ".join(result.counterexample))


def test_a_generation_holds_only_while_it_is_not_evicted() -> None:
    assert fill.check(fill.Generation(), evicts_meta=False).holds


def test_the_near_cache_is_coherent() -> None:
    result = near.check(near.Rules())
    assert result.holds, "\n".join(result.counterexample)
    assert result.states > 500


@pytest.mark.parametrize(
    "rule", ["token", "drop_on_loss", "invalidate_reads_on_loss", "requires_ping", "tracks_own_writes"]
)
def test_every_rule_of_the_near_cache_is_needed(rule: str) -> None:
    result = near.check(near.Rules(**{rule: False}))
    assert not result.holds
    print(f"\nwithout {rule}:\n  " + "\n  ".join(result.counterexample))
