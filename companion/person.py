"""What the commands ``companion forget`` and ``companion export`` do: erase a person, and write down what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from .identity import ENCODED, KnownAs, UnusableIdentity, e164, phone_caller, user_id_of
from .memory.erasure import erase_user, export_user
from .memory.moving import move_user_async
from .runtime import get_runtime, runtime_of_command
from .settings import Settings, SettingsError
from .store import PersonData, StoreError, person_to_json

_CACHE_TIMEOUT: Final = 5.0  # seconds that the command waits for Redis
_POLL: Final = 0.1


def user_id(given: str) -> str:
    """The user id that a person at a terminal means: an identity, a phone number, or an id as the store has it."""
    return _known_as(given).user_id


def _known_as(given: str) -> KnownAs:
    """The ids that a person at a terminal means.

    A number with ``+`` is a caller's on the phone where callers are known by their numbers (also with a key), and then
    what was kept before that is theirs too.
    """
    if given.startswith(ENCODED):
        return KnownAs(given)
    try:
        if given.startswith("+") and (settings := Settings.load()).phone_identity and (number := e164(given)):
            return phone_caller("", number, key=settings.id_key)
        return KnownAs(user_id_of(given))
    except (UnusableIdentity, SettingsError):  # an unusable setting is reported by the command itself
        return KnownAs(given)


async def export(given: str) -> str:
    """All that is kept of a person, as JSON text: in the store, and in the spool of this machine.

    Raises:
        StoreError: the store failed.
        SettingsError: a setting is missing or unusable.
    """
    async with runtime_of_command():
        return person_to_json(*await kept(given))


async def known_things(given: str) -> str:
    """How much is kept of a person, in a few words; empty for nothing.

    Raises:
        StoreError: the store failed.
        SettingsError: a setting is missing or unusable.
    """
    async with runtime_of_command():
        _, data, waiting = await kept(given)
        return described(data, len(waiting))


async def kept(given: str) -> tuple[str, PersonData, list[dict[str, Any]]]:
    """The id that a person is known by now, and what is kept of them: in the store, and in the spool of this machine.

    In the spool it may be under an id of before, which the replay looks up as this does.

    Raises:
        StoreError: the store failed.
    """
    runtime, person = get_runtime(), _known_as(given)
    if person.earlier:
        await move_user_async(person.user_id, person.earlier)
    user = await _present(person.user_id)
    ids = dict.fromkeys([user, person.user_id, *person.earlier])
    waiting = [fields for each in ids for fields in await asyncio.to_thread(runtime.spool.fields_of, each)]
    return user, await export_user(user), waiting


async def _present(user_id: str) -> str:
    """The id that a person is known by now, who may have been moved."""
    moved = await get_runtime().store.moved(user_id)
    return user_id if moved is None else moved.user_id


async def forget(given: str) -> bool:
    """Erase a person.

    Returns:
        Whether all of it is done. If not, the wish is kept, and the next start or a running worker completes it.

    Raises:
        StoreError: neither the store nor the spool could be written.
        SettingsError: a setting is missing or unusable.
    """
    async with runtime_of_command() as runtime:
        person = _known_as(given)
        if (runtime.settings.home / "redis").is_dir():  # the private server's data, on which a later start would build
            await runtime.open_local_cache()
        ids = [person.user_id, *person.earlier]
        with suppress(StoreError):  # then the wish waits for the store as well
            ids.append(await _present(person.user_id))
        complete = await erase_user(person.user_id, person.earlier)
        return complete or await _cache_is_clear(ids)


async def _cache_is_clear(user_ids: Sequence[str]) -> bool:
    """Deliver the erasure until Redis has been reached, for a few seconds: connecting may take longer than the rest."""
    loop = asyncio.get_running_loop()
    erasures, deadline = get_runtime().outbox_relay.erasures, loop.time() + _CACHE_TIMEOUT
    try:
        while loop.time() < deadline:
            if all([await erasures.deliver_pending(user) for user in user_ids]):
                return not await get_runtime().write_behind.eraser.waits_for(user_ids[0])
            await asyncio.sleep(_POLL)
    except StoreError:
        pass
    return False


def described(data: PersonData, waiting: int) -> str:
    """How much is kept of a person, in a few words; empty for nothing."""
    counts = {
        "profile": int(data.profile is not None or bool(data.versions)),
        "turn": len(data.turns),
        "fact": len(data.memories),
        "summary": len(data.summaries),
        "unstored line": waiting,
    }
    plural = {"summary": "summaries"}
    return ", ".join(
        f"{count} {name if count == 1 else plural.get(name, name + 's')}" for name, count in counts.items() if count
    )
