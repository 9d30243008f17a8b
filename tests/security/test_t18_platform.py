"""T-18: secrets of the platform are in no log, no error text, no file that others can read."""

import base64
import json
import logging
import pathlib
import stat

import pytest
from tests.support.platform_world import World, make_world

from cloister.cli import _local_key
from cloister.errors import CloisterError
from cloister.platform import bundle, local
from cloister.platform.tables import Boot
from cloister.platform.variables import Variables

MARK = b"marked-secret-7d1f0c"


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return make_world(tmp_path)


def secrets_of(world: World, key: str) -> list[bytes]:
    """What must be nowhere, in the forms in which it could be."""
    exported = json.loads(local.development_app_key_file(world.directory))["private"]
    raw = [base64.b64decode(exported), (world.store.directory / "master.key").read_bytes(), MARK]
    return [
        form
        for value in raw
        for form in (value, value.hex().encode(), base64.b64encode(value), repr(value).encode())
    ] + [key.encode(), key.split("_", 2)[2].encode()]


def everything(world: World) -> str:
    """One of each action; returns the new API key and leaves a marked variable."""
    made = world.keys.create("client", scopes=["app"])
    assert made.secret not in repr(made)
    Variables(world.database, world.uuid, world.clock).set("TOKEN", MARK, secret=False)
    world.provision()
    assert world.platform.newer_bundle(world.uuid, 0) is not None
    with pytest.raises(CloisterError):
        world.provision(nonce=b"n" * 32)
    world.keys.revoke(made.secret)
    return made.secret


def test_nothing_of_it_is_logged_at_any_level(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    try:
        key = everything(world)
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    logged = caplog.text.encode()
    assert b"INSERT INTO api_keys" in logged  # else nothing was listened to
    for secret in secrets_of(world, key):
        assert secret not in logged


def test_only_the_owners_files_hold_any_of_it(world: World) -> None:
    key = everything(world)
    local_key = _local_key.local_key(world.keys, world.store.directory)
    world.database.close()
    kept = {
        "master.key": (world.store.directory / "master.key").read_bytes(),
        "api-key": local_key.encode(),
    }
    for path in world.directory.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        for secret in [*secrets_of(world, key), local_key.encode()]:
            if secret in content:
                assert secret in kept.get(path.name, b""), f"{path.name} holds a secret"
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert local_key in (world.store.directory / "api-key").read_text()


def test_an_open_bundle_does_not_show_itself(world: World) -> None:
    key = everything(world)
    with world.database.reading() as session:
        enclave = world.registry.enclave(world.uuid)
        boot = session.get(Boot, (world.uuid, world.boot.key.public))
        assert enclave is not None
        assert boot is not None
        opened = bundle.assemble(session, world.database.vault, enclave, boot, now_ms=0)
    assert MARK in [variable.value for variable in opened.env]
    for shown in (repr(opened), str(opened), repr(opened.env), repr(opened.app_keys)):
        for secret in secrets_of(world, key):
            assert secret not in shown.encode()
