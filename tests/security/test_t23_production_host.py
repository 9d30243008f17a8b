"""T-23, the host's part: development anchors and stores with private halves are refused."""

import contextlib
import pathlib
import sqlite3

import pytest

from cloister.errors import ConfigError
from cloister.host.production import require_production_anchor, require_production_state
from cloister.platform.local import init_store

REAL_ROOT = (
    pathlib.Path(__file__).parents[2] / "rust" / "attestation" / "src" / "aws_nitro_root.der"
)


def store(path: pathlib.Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as made:
        for statement in statements:
            made.execute(statement)
        made.commit()


def test_only_the_aws_root_is_an_anchor_of_a_production_host() -> None:
    real = REAL_ROOT.read_bytes()
    require_production_anchor(real)
    for other in (b"", real[:-1], real + b"\x00", bytes([real[0], real[1] ^ 1]) + real[2:]):
        with pytest.raises(ConfigError, match="not the AWS Nitro root"):
            require_production_anchor(other)


def test_a_state_of_logs_and_objects_is_taken(tmp_path: pathlib.Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "0000000001.ndjson").write_text("{}\n")
    store(
        tmp_path / "host.sqlite",
        "CREATE TABLE store (id INTEGER, trust_class TEXT)",
        "INSERT INTO store VALUES (1, 'production')",
        "CREATE TABLE app_keys (id TEXT)",
    )
    require_production_state(tmp_path)
    require_production_state(tmp_path / "absent")


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE app_keys (id TEXT)", "INSERT INTO app_keys VALUES ('a')"], "app keys"),
        (
            ["CREATE TABLE service_keys (id TEXT)", "INSERT INTO service_keys VALUES ('a')"],
            "service keys",
        ),
        (
            ["CREATE TABLE store (trust_class TEXT)", "INSERT INTO store VALUES ('development')"],
            "development root",
        ),
        (
            [
                "CREATE TABLE enclaves (trust_class TEXT)",
                "INSERT INTO enclaves VALUES ('production')",
                "INSERT INTO enclaves VALUES ('development')",
            ],
            "development root",
        ),
    ],
)
def test_a_platform_store_is_refused_wherever_it_lies(
    tmp_path: pathlib.Path, statements: list[str], message: str
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = tmp_path / "deep" / "er" / "anything"
    store(path, *statements)
    with pytest.raises(ConfigError, match=message) as caught:
        require_production_state(tmp_path)
    assert str(path) in caught.value.message
    path.unlink()
    require_production_state(tmp_path)


@pytest.mark.parametrize("name", ["nsm-root.key", "nsm-root.pem", "tls-ca.key", "tls-ca.pem"])
def test_a_file_of_a_development_root_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="development root"):
        require_production_state(tmp_path)


def test_a_store_that_cannot_be_read_is_refused(tmp_path: pathlib.Path) -> None:
    """What cannot be looked into may hold anything."""
    (tmp_path / "broken").write_bytes(b"SQLite format 3\x00" + b"\xff" * 200)
    with pytest.raises(ConfigError, match="cannot be read"):
        require_production_state(tmp_path)


def test_the_store_that_init_makes_is_refused(tmp_path: pathlib.Path) -> None:
    """The real store, not one that looks like it."""
    init_store(tmp_path, name="hello", uuid="5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11")
    with pytest.raises(ConfigError, match=r"private halves|development root"):
        require_production_state(tmp_path)
