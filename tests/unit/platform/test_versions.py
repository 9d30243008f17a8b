"""Versions grow with every change, renewals come in time, and waiting ends when there is news."""

import threading
import time

import pytest
from tests.support.platform_world import World

from cloister.errors import ReleaseRefused
from cloister.platform import local
from cloister.platform.api_keys import ApiKeys
from cloister.platform.variables import Variables


def current(world: World) -> int:
    record = world.registry.enclave(world.uuid)
    assert record is not None
    return record.bundle_version


def test_every_change_that_a_bundle_carries_raises_the_version(world: World) -> None:
    variables = Variables(world.database, world.uuid, world.clock)
    key = world.keys.create("a", scopes=["app"])
    seen = [current(world)]
    for change in (
        lambda: world.keys.create("b", scopes=["app"]),
        lambda: world.keys.revoke(key.record.id),
        lambda: world.registry.add_app_key(world.store.app_uuid),
        lambda: variables.set("TOKEN", b"one", secret=False),
        lambda: variables.set("TOKEN", b"two", secret=False),
        lambda: variables.delete("TOKEN"),
    ):
        change()
        seen.append(current(world))
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_what_changes_nothing_does_not_raise_the_version(world: World) -> None:
    key = world.keys.create("a", scopes=["app"])
    world.keys.revoke(key.record.id)
    before = current(world)
    world.keys.revoke(key.record.id)
    world.registry.add_deployment(world.uuid, {i: world.boot.pcrs[i] for i in (0, 1, 2)})
    assert current(world) == before


def test_a_newer_bundle_is_sealed_to_the_same_boot(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    first = world.open(
        world.platform.provision(world.uuid, world.boot.document(challenge)), challenge
    )
    assert world.platform.newer_bundle(world.uuid, first["version"]) is None
    key = world.keys.create("late", scopes=["app"])
    sealed = world.platform.newer_bundle(
        world.uuid, first["version"], boot_key=world.boot.key.public
    )
    assert sealed is not None
    newer = world.open(sealed, challenge)
    assert newer["version"] > first["version"]
    assert [record[0] for record in newer["api_keys"]] == [key.record.id]


def test_a_bundle_is_renewed_at_half_of_its_life_under_the_same_version(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    first = world.open(
        world.platform.provision(world.uuid, world.boot.document(challenge)), challenge
    )
    world.clock.advance(minutes=7, seconds=29)
    assert world.platform.newer_bundle(world.uuid, first["version"]) is None
    world.clock.advance(seconds=1)
    sealed = world.platform.newer_bundle(world.uuid, first["version"])
    assert sealed is not None
    renewed = world.open(sealed, challenge)
    assert renewed["version"] == first["version"]
    assert renewed["not_after"] == first["not_after"] + 7.5 * 60 * 1000
    assert world.platform.newer_bundle(world.uuid, first["version"]) is None


def test_revoked_and_expired_keys_leave_the_bundle(world: World) -> None:
    revoked = world.keys.create("revoked", scopes=["app"])
    expiring = world.keys.create(
        "expiring", scopes=["app"], not_after=world.clock.now + world.clock.now.resolution * 1000
    )
    scope = f"enclave:{world.uuid}"
    kept = world.keys.create("kept", scopes=[scope])
    world.keys.revoke(revoked.secret)
    world.clock.advance(seconds=1)
    challenge = world.platform.issue_challenge(world.uuid)
    opened = world.open(
        world.platform.provision(world.uuid, world.boot.document(challenge)), challenge
    )
    ((key_id, _, _, scopes, _),) = opened["api_keys"]
    assert (key_id, scopes) == (kept.record.id, [scope])
    assert expiring.record.state(world.clock.now) == "expired"


def test_an_ended_deployment_gets_nothing_newer(world: World) -> None:
    world.provision()
    assert world.platform.newer_bundle(world.uuid, 0) is not None
    world.registry.end_deployment(world.deployment)
    with pytest.raises(ReleaseRefused, match="not active any more"):
        world.platform.newer_bundle(world.uuid, 0)


def test_a_boot_that_was_never_released_to_gets_nothing(world: World) -> None:
    with pytest.raises(ReleaseRefused, match="was not provisioned"):
        world.platform.newer_bundle(world.uuid, 0)
    world.provision()
    with pytest.raises(ReleaseRefused, match="was not provisioned"):
        world.platform.newer_bundle(world.uuid, 0, boot_key=b"k" * 32)
    assert world.platform.newer_bundle(world.uuid, 0, boot_key=world.boot.key.public)


def test_waiting_ends_at_once_when_a_key_is_made_elsewhere(world: World) -> None:
    """The change comes through another connection to the store, as from another process."""
    before = current(world)
    assert not world.platform.wait_for_change(world.uuid, before, 0.0)
    answers: list[bool] = []
    waiting = threading.Thread(
        target=lambda: answers.append(world.platform.wait_for_change(world.uuid, before, 60.0))
    )
    waiting.start()
    other = local.open_store(world.directory)
    started = time.monotonic()
    ApiKeys(other, world.store.app_uuid, world.clock).create("elsewhere", scopes=["app"])
    waiting.join(10)
    assert answers == [True]
    assert time.monotonic() - started < 5
    other.close()


def test_closing_ends_the_wait(world: World) -> None:
    before = current(world)
    answers: list[bool] = []
    waiting = threading.Thread(
        target=lambda: answers.append(world.platform.wait_for_change(world.uuid, before, 60.0))
    )
    waiting.start()
    world.platform.close()
    waiting.join(10)
    assert answers == [False]


def test_variables_reach_the_bundle_byte_for_byte(world: World) -> None:
    variables = Variables(world.database, world.uuid, world.clock)
    values = {"A": b"", "PEM": b"-----BEGIN\nx y\n$HOME'\"\n", "RAW": bytes(range(1, 256))}
    for name, value in values.items():
        variables.set(name, value, secret=False)
    challenge = world.platform.issue_challenge(world.uuid)
    opened = world.open(
        world.platform.provision(world.uuid, world.boot.document(challenge)), challenge
    )
    assert opened["env"] == [(name, value, False) for name, value in values.items()]
