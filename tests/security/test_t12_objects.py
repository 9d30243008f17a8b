"""T-12, at the platform: which sealed object is current is said by enclaves of its image alone.

The proofs are made by a second implementation, in Python (:mod:`tests.support.object_heads`).
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

import pytest
from tests.support.object_heads import image_of, name_of, proof_of
from tests.support.platform_world import PCRS, SimulatedBoot, World, make_world

from cloister.errors import InputError, ReleaseRefused
from cloister.platform import sealed_objects

DIGEST = hashlib.sha256(b"sealed").digest()
OTHER = {0: b"\x77" * 48, 1: PCRS[1], 2: PCRS[2]}


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return make_world(tmp_path)


@dataclasses.dataclass(frozen=True)
class Provisioned:
    """A boot that has its bundle, and what it knows from it."""

    world: World
    boot: SimulatedBoot
    challenge: bytes
    bundle: dict[str, Any]

    @classmethod
    def of(cls, world: World, boot: SimulatedBoot | None = None) -> "Provisioned":
        """Provisions a boot, the world's own unless another is given."""
        boot = boot or world.boot
        challenge = world.platform.issue_challenge(world.uuid)
        sealed = world.platform.provision(world.uuid, boot.document(challenge))
        return cls(world, boot, challenge, world.open(sealed, challenge, boot))

    @property
    def image(self) -> bytes:
        """PCR0, PCR1 and PCR2."""
        return image_of(self.boot.pcrs)

    def name(self, kind: str = "tls") -> str:
        """The whole name of an object of this image."""
        return name_of(kind, self.image)

    def proof(self, name: str, version: int, digest: bytes = DIGEST) -> bytes:
        """What an enclave of this image sends along with a head."""
        return proof_of(
            secret=self.bundle["sealing_secret"],
            image=self.image,
            enclave=self.world.uuid,
            name=name,
            version=version,
            digest=digest,
        )

    def record(self, version: int = 1, digest: bytes = DIGEST, **changes: Any) -> bool:
        """Has the platform record a head, with these fields changed on the way."""
        name = changes.get("name", self.name())
        fields: dict[str, Any] = {
            "boot_key": self.boot.key.public,
            "name": name,
            "version": version,
            "sha256": digest,
            "proof": self.proof(name, version, digest),
        }
        return self.world.platform.record_object(self.world.uuid, **fields | changes)

    def heads(self) -> dict[str, tuple[int, bytes]]:
        """What the next bundle of this boot says."""
        sealed = self.world.platform.newer_bundle(
            self.world.uuid, self.bundle["version"], boot_key=self.boot.key.public
        )
        assert sealed is not None, "a head that is recorded raises the version"
        heads: dict[str, tuple[int, bytes]] = self.world.open(sealed, self.challenge, self.boot)[
            "objects"
        ]
        return heads


def test_a_head_that_is_proved_is_in_the_next_bundle(world: World) -> None:
    enclave = Provisioned.of(world)
    assert enclave.bundle["objects"] == {}
    assert enclave.record(1)
    assert enclave.heads() == {enclave.name(): (1, DIGEST)}


def test_a_version_only_grows_and_the_first_of_two_counts(world: World) -> None:
    enclave = Provisioned.of(world)
    other = hashlib.sha256(b"other").digest()
    assert enclave.record(2)
    assert enclave.record(2), "the same head again"
    assert not enclave.record(2, other)
    assert not enclave.record(1, other)
    assert enclave.heads() == {enclave.name(): (2, DIGEST)}
    assert enclave.record(3, other)
    assert enclave.heads() == {enclave.name(): (3, other)}


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: {"proof": bytes(32)},
        lambda good: {"proof": good.proof(good.name(), 1)[:-1]},
        lambda good: {"proof": good.proof(good.name(), 2)},
        lambda good: {"proof": good.proof(good.name(), 1, bytes(32))},
        lambda good: {"proof": good.proof(good.name("acme"), 1)},
    ],
    ids=["zeros", "cut", "version", "digest", "name"],
)
def test_a_host_cannot_record_a_head(world: World, forge: Any) -> None:
    enclave = Provisioned.of(world)
    with pytest.raises(ReleaseRefused, match="not proved by an enclave of this image"):
        enclave.record(1, **forge(enclave))
    assert enclave.record(1)


def test_t22_another_image_cannot_record_for_this_one(world: World) -> None:
    world.registry.add_deployment(world.uuid, OTHER)
    mine = Provisioned.of(world)
    other = Provisioned.of(world, world.another_boot(pcrs=OTHER | {4: PCRS[4], 8: PCRS[8]}))
    assert other.bundle["sealing_secret"] == mine.bundle["sealing_secret"]
    with pytest.raises(ReleaseRefused, match="its name is of another image"):
        other.record(1, name=mine.name())
    with pytest.raises(ReleaseRefused, match="not proved by an enclave of this image"):
        mine.record(1, proof=other.proof(mine.name(), 1))
    assert mine.record(1)
    assert other.record(1)
    assert set(mine.heads()) == {mine.name()}, "another image's objects are none of its business"


def test_images_that_share_see_one_head(world: World) -> None:
    world.registry.add_deployment(world.uuid, OTHER)
    mine = Provisioned.of(world)
    other = Provisioned.of(world, world.another_boot(pcrs=OTHER | {4: PCRS[4], 8: PCRS[8]}))
    assert mine.record(1, name="tls.shared")
    assert other.heads() == {"tls.shared": (1, DIGEST)}


def test_t23_the_secret_of_an_enclave_is_its_own(world: World, tmp_path: pathlib.Path) -> None:
    first = Provisioned.of(world)
    again = Provisioned.of(world, world.another_boot())
    assert first.bundle["sealing_secret"] == again.bundle["sealing_secret"]
    elsewhere = Provisioned.of(make_world(tmp_path / "elsewhere"))
    assert first.bundle["sealing_secret"] != elsewhere.bundle["sealing_secret"]


def test_a_boot_that_was_not_released_to_records_nothing(world: World) -> None:
    enclave = Provisioned.of(world)
    with pytest.raises(ReleaseRefused, match="was not provisioned"):
        enclave.record(1, boot_key=bytes(32))
    world.registry.end_deployment(world.deployment)
    with pytest.raises(ReleaseRefused, match="not active"):
        enclave.record(1)


@pytest.mark.parametrize(
    "changes",
    [{"name": "tls"}, {"name": "../tls.shared"}, {"name": "A.shared"}, {"sha256": b"short"}],
    ids=str,
)
def test_a_head_out_of_bounds_is_refused(world: World, changes: dict[str, Any]) -> None:
    enclave = Provisioned.of(world)
    assert enclave.record(1)
    with pytest.raises(InputError):
        enclave.record(2, **{"proof": bytes(32)} | changes)


def test_an_image_has_a_bounded_number_of_objects(world: World) -> None:
    enclave = Provisioned.of(world)
    for number in range(sealed_objects.MAX_HEADS):
        assert enclave.record(1, name=enclave.name(f"o{number}"))
    with pytest.raises(ReleaseRefused, match="the most it can have"):
        enclave.record(1, name=enclave.name("more"))
    assert enclave.record(2, name=enclave.name("o0"))
