"""The error code of a rejected command, as servers of every version report it."""

from __future__ import annotations

import pytest

from cache.exceptions import CommandRejected

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
        ("NOPERM User companion has no permissions to run the 'del' command", "NOPERM"),
        # Redis 6.2
        (
            "ERR Error running script (call to f_719): @user_script:1: @user_script: 1: "
            "The user executing the script can't run this command or subcommand",
            "NOPERM",
        ),
        (
            "ERR Error running script (call to f_719): @user_script:2: @user_script: 2: "
            "-OOM command not allowed when used memory > 'maxmemory'.",
            "OOM",
        ),
        # Redis 7 and 8, Valkey
        (
            "ERR ACL failure in script: User companion has no permissions to run the 'del' command "
            "script: 719, on @user_script:1.",
            "NOPERM",
        ),
        ("ERR ACL failure in script: No permissions to access a key script: on @user_script:1.", "NOPERM"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: 719, on @user_script:1.", "OOM"),
        # Text of the command itself has no effect.
        ("ERR unknown command 'X', with args beginning with: 'ACL failure in script: ' ", "ERR"),
    ],
)
def test_code(text: str, code: str) -> None:
    assert CommandRejected(text).code == code
