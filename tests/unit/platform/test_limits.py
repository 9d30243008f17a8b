"""What an owner limits: how long an image is released to, and how often it runs at one time."""

import datetime as dt

import pytest
from tests.support.platform_world import PCRS, SimulatedBoot, World

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


def of_image(world: World, first: int) -> tuple[dict[int, bytes], SimulatedBoot]:
    """Another image, with these bytes in PCR0, and a boot of it."""
    pcrs = PCRS | {0: bytes([first]) * 48}
    return {index: pcrs[index] for index in MEASURED}, world.another_boot(pcrs=pcrs)


def test_a_place_is_free_when_the_deployment_of_its_boot_ends(world: World) -> None:
    """An image for 75 s, and the one before it again: it waited 15 minutes for the place."""
    registers, short = of_image(world, 9)
    world.registry.change_enclave(world.uuid, {"max_boots": 2})
    world.provision()
    end = world.clock() + dt.timedelta(seconds=75)
    world.registry.add_deployment(world.uuid, registers, until=end)
    world.provision(short)
    world.clock.advance(seconds=74)
    again = world.another_boot()
    with pytest.raises(ReleaseRefused, match="runs 2 times") as caught:
        world.provision(again)
    assert "when its bundle ends" in str(caught.value.hint)
    refused = Owner(world.database, world.clock).releases(world.uuid, limit=1)[0]
    assert not refused["released"]
    assert "runs 2 times" in refused["reason"]
    world.clock.advance(seconds=1)
    world.provision(again)
    # That of the one before it is taken: its bundle goes on, whatever became of it.
    with pytest.raises(ReleaseRefused, match="runs 2 times"):
        world.provision(world.another_boot())


def test_an_end_that_is_brought_forward_frees_no_place_before_its_bundle_ends(
    world: World,
) -> None:
    """The host may keep the shorter bundle from the boot, which goes on with the one it has."""
    world.registry.change_enclave(world.uuid, {"max_boots": 1})
    registers, other = of_image(world, 9)
    world.registry.add_deployment(world.uuid, registers)
    world.provision()
    world.clock.advance(minutes=1)
    end = world.clock() + dt.timedelta(minutes=2)
    world.registry.add_deployment(world.uuid, MEASURED, until=end)
    assert world.platform.newer_bundle(world.uuid, 1) is not None
    world.clock.advance(minutes=13, seconds=59)
    with pytest.raises(ReleaseRefused, match="runs once, the most"):
        world.provision(other)
    world.clock.advance(seconds=1)
    world.provision(other)


def test_an_end_by_the_owner_frees_no_place_before_its_bundle_ends(world: World) -> None:
    world.registry.change_enclave(world.uuid, {"max_boots": 1})
    registers, other = of_image(world, 9)
    world.provision()
    world.registry.add_deployment(world.uuid, registers, ends_others=True)
    world.clock.advance(minutes=14, seconds=59)
    with pytest.raises(ReleaseRefused, match="runs once, the most"):
        world.provision(other)
    world.clock.advance(seconds=1)
    world.provision(other)


def test_a_bundle_that_cannot_last_longer_is_not_made_again(world: World) -> None:
    """A host that waits for the next would be given one at once, and again and again."""
    end = world.clock() + dt.timedelta(seconds=75)
    world.registry.add_deployment(world.uuid, MEASURED, until=end)
    version = provisioned(world)["version"]
    assert isinstance(version, int)
    world.clock.advance(seconds=70)
    assert world.platform.newer_bundle(world.uuid, version) is None
    assert world.platform.newer_bundle(world.uuid, version - 1) is not None


def test_a_clock_that_is_set_back_holds_up_no_renewal(world: World) -> None:
    version = provisioned(world)["version"]
    assert isinstance(version, int)
    world.clock.advance(hours=-1)
    # Documents of that time need a boot of that time; a boot's key stays what it is.
    earlier = world.another_boot()
    earlier.key = world.boot.key
    world.provision(earlier)
    world.clock.advance(minutes=7, seconds=29)
    assert world.platform.newer_bundle(world.uuid, version) is None
    world.clock.advance(seconds=1)
    assert world.platform.newer_bundle(world.uuid, version) is not None


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
