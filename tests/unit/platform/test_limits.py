"""What an owner limits: how long an image is released to, and how often it runs at one time."""

import datetime as dt

import pytest
from tests.support.platform_world import PCRS, World

from cloister.errors import ConfigError, MissingInput, ReleaseRefused
from cloister.platform.clock import to_ms
from cloister.platform.owner import Owner

MEASURED = {index: PCRS[index] for index in (0, 1, 2)}


def provisioned(world: World) -> dict[str, object]:
    challenge = world.platform.issue_challenge(world.uuid)
    sealed = world.platform.provision(world.uuid, world.boot.document(challenge))
    opened: dict[str, object] = world.open(sealed, challenge)
    return opened


def test_a_bundle_ends_with_its_deployment(world: World) -> None:
    assert provisioned(world)["not_after"] == to_ms(world.clock()) + 15 * 60 * 1000
    end = world.clock() + dt.timedelta(minutes=20)
    world.registry.add_deployment(world.uuid, MEASURED, until=end)
    assert provisioned(world)["not_after"] == to_ms(world.clock()) + 15 * 60 * 1000
    world.clock.advance(minutes=10)
    assert provisioned(world)["not_after"] == to_ms(end)
    world.clock.advance(minutes=9, seconds=59)
    assert provisioned(world)["not_after"] == to_ms(end)
    assert world.platform.newer_bundle(world.uuid, 0) is not None
    assert Owner(world.database, world.clock).deployments(world.uuid)[0]["active"]
    world.clock.advance(seconds=1)
    with pytest.raises(ReleaseRefused, match="no active deployment"):
        provisioned(world)
    with pytest.raises(ReleaseRefused, match="not active any more"):
        world.platform.newer_bundle(world.uuid, 0)
    assert not Owner(world.database, world.clock).deployments(world.uuid)[0]["active"]


def test_an_end_that_is_moved_reaches_what_runs(world: World) -> None:
    version = provisioned(world)["version"]
    end = world.clock() + dt.timedelta(minutes=5)
    world.registry.add_deployment(world.uuid, MEASURED, until=end)
    assert isinstance(version, int)
    assert world.platform.wait_for_change(world.uuid, version, 0)
    world.registry.add_deployment(world.uuid, MEASURED)
    assert provisioned(world)["not_after"] == to_ms(world.clock()) + 15 * 60 * 1000
    with pytest.raises(ConfigError, match="in the past"):
        world.registry.add_deployment(world.uuid, MEASURED, until=world.clock())


def test_an_enclave_runs_as_often_as_its_owner_allows(world: World) -> None:
    first, second, third = (world.another_boot() for _ in range(3))
    world.registry.change_enclave(world.uuid, {"max_boots": 2})
    world.provision(first)
    world.provision(second)
    with pytest.raises(ReleaseRefused, match="runs 2 times, the most"):
        world.provision(third)
    # What runs already is renewed, and may prove itself again.
    world.clock.advance(minutes=8)
    assert world.platform.newer_bundle(world.uuid, 1, boot_key=first.key.public) is not None
    world.provision(first)
    with pytest.raises(ReleaseRefused, match="runs 2 times"):
        world.provision(third)
    # The second has asked for nothing since: its bundle ends, and its place is free.
    world.clock.advance(minutes=7)
    world.provision(third)
    world.registry.change_enclave(world.uuid, {"max_boots": None})
    world.provision(second)


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_a_limit_that_is_none_is_refused(world: World, count: int) -> None:
    with pytest.raises(ConfigError, match="an enclave runs 1 to"):
        world.registry.change_enclave(world.uuid, {"max_boots": count})
    with pytest.raises(MissingInput):
        world.registry.change_enclave(world.store.app_uuid, {"max_boots": 1})
    world.registry.change_enclave(world.uuid, {"max_boots": 1})
    record = world.registry.enclave(world.uuid)
    assert record is not None
    assert record.max_boots == 1
