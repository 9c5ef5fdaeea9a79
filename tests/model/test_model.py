"""The protocols hold in every interleaving, and the known-bad ones beside them do not.

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
    verdict = fill.check(protocol)
    assert verdict.holds, "\n".join(verdict.counterexample)
    assert verdict.states > 1_000  # it did look


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
def test_what_does_not_hold(protocol: fill.Protocol) -> None:
    verdict = fill.check(protocol)
    assert not verdict.holds
    print(f"\n{type(protocol).__doc__}\n  " + "\n  ".join(verdict.counterexample))


@pytest.mark.parametrize(
    "protocol", [fill.TokenPerFill(), fill.OneStep(), fill.Store()], ids=lambda p: type(p).__name__
)
def test_what_the_source_has_lost_does_not_come_back(protocol: fill.Protocol) -> None:
    verdict = fill.check(protocol, forgets=True)
    assert verdict.holds, "\n".join(verdict.counterexample)
    assert verdict.states > 1_000


@pytest.mark.parametrize(
    "protocol", [fill.NoneIsNotKept(), fill.NoneKeepsTheLastGood()], ids=lambda p: type(p).__name__
)
def test_what_lets_it_come_back(protocol: fill.Protocol) -> None:
    verdict = fill.check(protocol, forgets=True)
    assert not verdict.holds
    print(f"\n{type(protocol).__doc__}\n  " + "\n  ".join(verdict.counterexample))


def test_a_generation_holds_only_while_it_is_not_evicted() -> None:
    assert fill.check(fill.Generation(), evicts_meta=False).holds


def test_the_near_cache_is_coherent() -> None:
    verdict = near.check(near.Rules())
    assert verdict.holds, "\n".join(verdict.counterexample)
    assert verdict.states > 500


@pytest.mark.parametrize("rule", ["token", "drop_on_loss", "spoil_on_loss", "only_proven", "told_of_own"])
def test_every_rule_of_the_near_cache_is_needed(rule: str) -> None:
    verdict = near.check(near.Rules(**{rule: False}))
    assert not verdict.holds
    print(f"\nwithout {rule}:\n  " + "\n  ".join(verdict.counterexample))
