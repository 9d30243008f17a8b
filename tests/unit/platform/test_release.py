"""Every check of wire.md §3, each with the twin that passes it."""

import pathlib
import uuid

import pytest
from sqlalchemy import select
from tests.support.platform_world import DEBUG_PCRS, PCRS, ZERO, World, make_world

from cloister.errors import ConfigError, ReleaseRefused
from cloister.platform import database as databases
from cloister.platform.registry import Registry
from cloister.platform.release import PROVISION_USER_DATA
from cloister.platform.tables import Release
from cloister.platform.trust_class import TrustClass


def refused(world: World, expected: str, **changes: object) -> None:
    """This document is refused for this reason, and the same one without the changes is not."""
    world.provision()
    with pytest.raises(ReleaseRefused, match=expected):
        world.provision(**changes)


def test_a_boot_that_proves_itself_gets_what_the_owner_registered(world: World) -> None:
    key = world.keys.create("client", scopes=["app"])
    challenge = world.platform.issue_challenge(world.uuid)
    sealed = world.platform.provision(world.uuid, world.boot.document(challenge))

    opened = world.open(sealed, challenge)
    assert opened["deployment"] == world.deployment
    assert [record[0] for record in opened["api_keys"]] == [key.record.id]
    assert [(curve, len(private)) for _, curve, private in opened["app_keys"]] == [("P-256", 32)]
    assert opened["identity"] == (str(world.store.team_uuid), str(world.store.app_uuid), "hello")
    assert opened["not_after"] - opened["issued_at"] == 15 * 60 * 1000


def test_nothing_in_a_sealed_bundle_is_in_clear(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    sealed = world.platform.provision(world.uuid, world.boot.document(challenge))
    ((_, _, private),) = world.open(sealed, challenge)["app_keys"]
    assert private not in sealed
    assert str(world.store.app_uuid).encode() not in sealed


def test_another_boot_cannot_open_the_bundle(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    sealed = world.platform.provision(world.uuid, world.boot.document(challenge))
    world.open(sealed, challenge)
    with pytest.raises(ValueError, match="cannot be opened"):
        world.open(sealed, challenge, world.another_boot())


def test_an_altered_document_is_refused(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    document = world.boot.document(challenge)
    with pytest.raises(ReleaseRefused, match=r"refused \(BadSignature\)"):
        world.platform.provision(world.uuid, document[:-1] + bytes([document[-1] ^ 1]))
    world.platform.provision(world.uuid, document)


def test_what_is_no_document_is_refused(world: World) -> None:
    with pytest.raises(ReleaseRefused, match=r"refused \(MalformedDocument\)"):
        world.platform.provision(world.uuid, b"")


def test_another_development_root_is_refused(world: World, tmp_path: pathlib.Path) -> None:
    other = make_world(tmp_path / "other")
    challenge = world.platform.issue_challenge(world.uuid)
    with pytest.raises(ReleaseRefused, match=r"refused \(UntrustedChain\)"):
        world.platform.provision(world.uuid, other.boot.document(challenge))
    world.platform.provision(world.uuid, world.boot.document(challenge))
    other.database.close()


@pytest.mark.parametrize(
    "user_data",
    [None, b"", b"cloister/provision/v1", PROVISION_USER_DATA + b"\0", PROVISION_USER_DATA[:-1]],
    ids=["none", "empty", "without prefix", "longer", "shorter"],
)
def test_a_document_for_another_purpose_is_refused(world: World, user_data: bytes | None) -> None:
    refused(world, "not made for provisioning", user_data=user_data)


@pytest.mark.parametrize("public_key", [None, b"", b"k" * 31, b"k" * 33])
def test_a_document_without_a_boot_key_is_refused(world: World, public_key: bytes | None) -> None:
    refused(world, "carries no X25519 key", public_key=public_key)


@pytest.mark.parametrize("nonce", [None, b"", b"n" * 32], ids=["none", "empty", "other"])
def test_a_nonce_of_somebody_else_is_refused(world: World, nonce: bytes | None) -> None:
    refused(world, "not a challenge of this platform", nonce=nonce)


def test_a_challenge_is_used_once(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    world.platform.provision(world.uuid, world.boot.document(challenge))
    with pytest.raises(ReleaseRefused, match="used before"):
        world.platform.provision(world.uuid, world.another_boot().document(challenge))


def test_a_challenge_lives_for_sixty_seconds(world: World) -> None:
    in_time, late = (world.platform.issue_challenge(world.uuid) for _ in range(2))
    world.clock.advance(seconds=60)
    world.platform.provision(world.uuid, world.boot.document(in_time))
    world.clock.advance(milliseconds=1)
    with pytest.raises(ReleaseRefused, match="challenge has expired"):
        world.platform.provision(world.uuid, world.boot.document(late))


def test_a_challenge_belongs_to_one_enclave(world: World) -> None:
    """Two enclaves of one app that run the same image: the document alone does not tell them."""
    other = uuid.uuid4()
    world.registry.add_enclave(
        world.store.app_uuid, "other", uuid=other, trust_class=TrustClass.DEVELOPMENT
    )
    world.registry.add_deployment(other, {index: PCRS[index] for index in (0, 1, 2)})
    foreign = world.platform.issue_challenge(other)
    with pytest.raises(ReleaseRefused, match="issued to another enclave"):
        world.platform.provision(world.uuid, world.boot.document(foreign))
    world.platform.provision(other, world.boot.document(foreign))


def test_open_challenges_are_bounded_and_expire(world: World) -> None:
    for _ in range(256):
        world.platform.issue_challenge(world.uuid)
    with pytest.raises(ReleaseRefused, match="256 open challenges"):
        world.platform.issue_challenge(world.uuid)
    world.clock.advance(seconds=61)
    world.platform.issue_challenge(world.uuid)


def test_a_document_is_good_for_five_minutes(world: World) -> None:
    """The challenge is fresh in both: only the document's own age differs."""
    value = world.platform.issue_challenge(world.uuid)
    document = world.boot.document(value)
    world.clock.advance(minutes=5, seconds=1)
    with pytest.raises(ReleaseRefused, match=r"refused \(StaleDocument\)"):
        world.platform.provision(world.uuid, document)
    world.provision()


@pytest.mark.parametrize("register", [0, 1, 2])
def test_registers_of_no_deployment_are_refused(world: World, register: int) -> None:
    world.provision()
    other = world.another_boot(pcrs=PCRS | {register: b"\xee" * 48})
    with pytest.raises(ReleaseRefused, match="no active deployment of this enclave has"):
        world.provision(other)


def test_an_ended_deployment_is_refused_and_an_active_one_is_not(world: World) -> None:
    image = PCRS | {0: b"\xaa" * 48}
    newer = world.registry.add_deployment(world.uuid, {i: image[i] for i in (0, 1, 2)})
    boot = world.another_boot(pcrs=image)
    world.provision(boot)
    world.registry.end_deployment(newer)
    with pytest.raises(ReleaseRefused, match="no active deployment of this enclave has"):
        world.provision(boot)
    world.provision()
    world.registry.end_deployment(world.deployment)
    with pytest.raises(ReleaseRefused, match="has no active deployment"):
        world.provision()


def test_every_register_that_a_deployment_names_must_match(world: World) -> None:
    """PCR8 is in the deployment of a signed image; a document without it is another image."""
    world.registry.end_deployment(world.deployment)
    world.registry.add_deployment(world.uuid, {index: PCRS[index] for index in (0, 1, 2, 8)})
    world.provision()
    unsigned = {index: value for index, value in PCRS.items() if index != 8}
    for other in (PCRS | {8: b"\xee" * 48}, unsigned):
        with pytest.raises(ReleaseRefused, match="all of the document's PCRs"):
            world.provision(world.another_boot(pcrs=other))


def test_an_image_must_be_signed_by_a_signer_of_the_enclave(world: World) -> None:
    signed = uuid.uuid4()
    world.registry.add_enclave(
        world.store.app_uuid,
        "signed",
        uuid=signed,
        trust_class=TrustClass.DEVELOPMENT,
        signers=[b"\x55" * 48, PCRS[8]],
    )
    measured = {index: PCRS[index] for index in (0, 1, 2)}
    with pytest.raises(ConfigError, match="not signed by a signer"):
        world.registry.add_deployment(signed, measured | {8: b"\xee" * 48})
    world.registry.add_deployment(signed, measured | {8: PCRS[8]})
    challenge = world.platform.issue_challenge(signed)
    world.platform.provision(signed, world.boot.document(challenge))
    other = world.another_boot(pcrs=PCRS | {8: b"\xee" * 48})
    challenge = world.platform.issue_challenge(signed)
    with pytest.raises(ReleaseRefused, match="not signed by a signer"):
        world.platform.provision(signed, other.document(challenge))


def test_a_debug_document_needs_an_enclave_that_is_registered_as_debug(
    world: World, tmp_path: pathlib.Path
) -> None:
    world.provision()
    with pytest.raises(ReleaseRefused, match="not registered as debug"):
        world.provision(world.another_boot(pcrs=DEBUG_PCRS))
    debug = make_world(tmp_path / "debug", debug=True)
    debug.provision()
    debug.database.close()


def test_a_debug_enclave_is_tied_to_its_parent_instance(tmp_path: pathlib.Path) -> None:
    world = make_world(tmp_path, debug=True)
    world.provision()
    without = {index: value for index, value in DEBUG_PCRS.items() if index != 4}
    for elsewhere in (DEBUG_PCRS | {4: b"\xee" * 48}, without):
        with pytest.raises(ReleaseRefused, match="another parent instance"):
            world.provision(world.another_boot(pcrs=elsewhere))
    world.database.close()


def test_a_debug_deployment_without_its_parent_cannot_be_registered(
    tmp_path: pathlib.Path,
) -> None:
    database = databases.create(tmp_path, TrustClass.PRODUCTION, now_ms=0)
    registry = Registry(database)
    app = registry.add_app(registry.add_team("team"), "app")
    debug = uuid.uuid4()
    registry.add_enclave(app, "debug", uuid=debug, trust_class=TrustClass.DEBUG, accepts_debug=True)
    zeros = {index: DEBUG_PCRS[index] for index in (0, 1, 2)}
    for incomplete in (zeros, zeros | {4: ZERO}):
        with pytest.raises(ConfigError, match="must pin its parent instance"):
            registry.add_deployment(debug, incomplete)
    registry.add_deployment(debug, zeros | {4: b"\x44" * 48})
    database.close()


@pytest.mark.parametrize("who", ["00000000-0000-4000-8000-000000000000", "../etc", ""])
def test_an_unknown_enclave_is_refused(world: World, who: str) -> None:
    with pytest.raises(ReleaseRefused, match="no enclave of this uuid"):
        world.platform.issue_challenge(who)
    with pytest.raises(ReleaseRefused, match="no enclave of this uuid"):
        world.platform.wait_for_change(who, 0, 0.0)
    world.platform.issue_challenge(str(world.uuid))


def test_what_was_released_and_what_was_refused_is_recorded(world: World) -> None:
    world.provision()
    with pytest.raises(ReleaseRefused):
        world.provision(nonce=b"n" * 32)
    with world.database.reading() as session:
        released, refusal = session.scalars(select(Release).order_by(Release.id)).all()
    assert (released.released, released.deployment_id) == (True, world.deployment)
    assert released.boot_key == world.boot.key.public
    assert released.pcrs is not None
    assert released.pcrs["0"] == PCRS[0].hex()
    assert not refusal.released
    assert "not a challenge of this platform" in refusal.reason
